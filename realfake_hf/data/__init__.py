"""Load real and fake images from any source in one schema, and fetch them as batches."""

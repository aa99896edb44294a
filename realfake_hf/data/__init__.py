"""Any source of real and fake pictures as one schema, and its pixels as fast batches."""

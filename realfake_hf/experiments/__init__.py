"""Comparisons of models, trainings and data sets, and what they leave in results/."""

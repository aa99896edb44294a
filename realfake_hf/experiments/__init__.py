"""Experiments of several trainings, comparisons of trained models, and audits of data sets."""

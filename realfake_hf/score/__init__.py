"""Scoring without end: any number of pictures, part by part, with nothing lost when something dies."""

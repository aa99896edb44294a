"""Fault injection: long jobs are killed, starved and damaged, and must still give the result of an undisturbed run."""

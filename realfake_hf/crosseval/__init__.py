"""Every model on every data set: what holds elsewhere, and what does not."""

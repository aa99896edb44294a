"""A training from settings to a run folder: arguments, the Trainer and its callbacks, optimization, teachers."""

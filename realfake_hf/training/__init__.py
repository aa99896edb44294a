"""Train image classifiers: settings, inputs, the Trainer and its callbacks, and measurements after training."""

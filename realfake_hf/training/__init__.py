"""Train image classifiers: settings, inputs, the Trainer and its callbacks, and what is fitted after training."""

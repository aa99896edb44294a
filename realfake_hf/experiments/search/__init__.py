"""The paper's search for a topology, as an Optuna study that any number of workers share."""

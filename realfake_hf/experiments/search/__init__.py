"""The paper's search for a CNN topology, as an Optuna study shared by any number of workers."""

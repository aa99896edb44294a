"""Do explanations agree, are they faithful, and is what they suggest true? Studies of models on a test set."""

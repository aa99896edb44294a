"""Do explanations agree, are they faithful, and is what they suggest true? A study of models on a test set."""

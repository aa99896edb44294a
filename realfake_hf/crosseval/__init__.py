"""Cross-evaluation: every model on every data set, with reports on confidence, robustness and shortcuts."""

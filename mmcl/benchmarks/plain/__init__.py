"""Networks and training steps written the plain way, as released: baselines of speed ratios, references of tests."""

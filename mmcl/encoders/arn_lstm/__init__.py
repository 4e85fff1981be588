"""ARN-LSTM (Wang et al., arXiv 2411.01769): relations between joints or frames, window by window, then an LSTM."""

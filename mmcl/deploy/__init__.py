"""What leaves training: bundles, graphs, prediction for files, videos and streams. Imports no training package."""

"""Clips: readers of raw data sets, the clip store, protocols, video and crops, inspection, the demo's people."""

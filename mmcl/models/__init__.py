"""Trained models: what they are made of and what they learned from."""

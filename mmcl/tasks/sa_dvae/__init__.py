"""SA-DVAE (ECCV 2024): skeletons and texts meet in the part of a skeleton's feature that is about meaning."""

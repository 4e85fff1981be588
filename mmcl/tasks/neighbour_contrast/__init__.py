"""Nearest-neighbour contrast (STARS, arXiv 2407.10935): head, queue, loss, and the task."""

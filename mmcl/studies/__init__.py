"""Studies: a grid of arms x seeds (x draws of a random protocol) from one recipe, run and put in one table."""

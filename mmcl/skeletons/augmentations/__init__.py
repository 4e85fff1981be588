"""How training clips are varied: each kind, and all of a recipe together."""

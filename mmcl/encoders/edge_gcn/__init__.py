"""A graph network with explicit edge importance: AutoGCN's student, as ShapGCN explains it (arXiv 2411.03714)."""

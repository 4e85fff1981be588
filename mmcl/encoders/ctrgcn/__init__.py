"""CTR-GCN (Chen et al., ICCV 2021): the network, its units, its form for use only, its official checkpoints."""

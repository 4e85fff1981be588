"""MAMP (Mao et al., ICCV 2023): a transformer over patches of single joints, its blocks, its decoder of motion."""

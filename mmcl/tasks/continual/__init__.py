"""Learning classes one part after the other with a small memory: CHARON (ICPR 2024) and what it is compared with."""

"""STTFormer (Qiu et al., 2022) as CHARON changed it: attention over the joints of a few frames, and its decoder."""

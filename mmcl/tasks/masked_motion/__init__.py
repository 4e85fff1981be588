"""Masked motion prediction (MAMP, Mao et al., ICCV 2023): masks, decoder, loss, and the task."""

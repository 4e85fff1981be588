"""Parts of a body meet texts of these parts (STEP-CATFormer, BMVC 2023): texts, loss, and the task."""

"""Learning from classes of uneven size: balanced losses, and clips mixed by body parts (Shap-Mix, IJCAI 2024)."""

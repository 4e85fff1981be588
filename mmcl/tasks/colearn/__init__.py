"""Multimodal co-learning (MMCL, ACM MM 2024): CLIP and an LLM help the skeleton encoder learn."""

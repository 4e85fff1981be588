"""The two helpers of co-learning, CLIP and the multimodal LLM, and caches of what they say while frozen."""

"""The two helpers of co-learning, CLIP and the multimodal LLM, and the caches of what they say while they are frozen."""

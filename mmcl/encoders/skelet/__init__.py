"""SkeleT-GCN: graph convolutions whose joints are mapped to ever fewer ones, on expressive keypoints or any layout."""

"""Weakly supervised segmentation: from image-level labels to segmentation networks, stage by stage."""

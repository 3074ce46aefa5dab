"""Classifiers that learn from image-level labels, and their class activation maps (CAM)."""

"""Segmentation networks that learn from masks, and their predictions."""

"""Instances: their truth, their form on disk, how they come of class maps or of a detector."""

"""Backbones by name, and the files of weights that they start from."""

"""Proposals: masks without a class that may be objects; published ones, a user's, or our own groups of superpixels."""

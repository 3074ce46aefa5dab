"""Scores of every stage against the true masks; nothing here loads torch."""

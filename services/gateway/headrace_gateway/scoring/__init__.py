"""Scores by the deployed model: which version, and asking for them under a deadline."""

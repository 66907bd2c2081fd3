"""Candidates, scores by popularity, and the log of what served."""

"""Computes real-time features from behaviour events into Redis."""

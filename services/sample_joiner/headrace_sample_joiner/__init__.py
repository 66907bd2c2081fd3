"""Joins impressions, actions and feature logs into labelled samples."""

"""Validates versions of models, and deploys them."""

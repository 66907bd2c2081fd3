"""Versions swapped under load."""

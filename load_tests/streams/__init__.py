"""Streams: a seeded world with known truth, and what the workers make of it."""

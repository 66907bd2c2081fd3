"""A seeded world of users who look and click with known probabilities, playing against the platform's HTTP API."""

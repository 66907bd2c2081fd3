"""Load on the gateway."""

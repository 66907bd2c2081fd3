"""The network, its id tables, and what of it serves."""

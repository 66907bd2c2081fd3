"""Adapters of the stores, one module per store."""

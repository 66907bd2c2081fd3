"""Benchmarks and fault drivers; each prints JSON."""

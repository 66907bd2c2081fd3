"""Benchmark of the control plane."""

"""Trains models: base models from all samples, increments from their change stream."""

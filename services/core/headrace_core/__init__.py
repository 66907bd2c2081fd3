"""Contracts, definitions, stream runtime, stores and telemetry shared by every Headrace service."""

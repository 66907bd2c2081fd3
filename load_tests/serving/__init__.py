"""What tests and benchmarks of serving share: small models, and services as processes."""

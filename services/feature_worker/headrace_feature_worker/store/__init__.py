"""Where values go: Redis, and partial counts to Kafka."""

"""The gateway's sides of Kafka and Redis."""

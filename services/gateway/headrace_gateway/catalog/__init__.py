"""Users and items: written to Kafka and Redis, remembered for a moment."""

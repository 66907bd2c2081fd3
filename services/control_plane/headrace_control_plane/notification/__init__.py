"""Events in, and out to listeners and Kafka."""

"""Behaviour events: decoded, judged one by one, enriched, written to Kafka."""

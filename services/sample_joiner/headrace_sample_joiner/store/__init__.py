"""The sample store in PostgreSQL."""

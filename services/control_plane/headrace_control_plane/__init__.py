"""The control plane: events, models, runs and workflows over one PostgreSQL schema."""

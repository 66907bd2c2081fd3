"""What the control plane keeps in PostgreSQL; each module owns its tables."""

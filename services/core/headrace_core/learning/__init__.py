"""What trainer, validator and gateway share: one way from features to columns."""

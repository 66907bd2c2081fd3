"""Learning from the change stream."""

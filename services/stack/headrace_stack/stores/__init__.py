"""The embedded stores: how each is prepared, started, and known to be ready."""

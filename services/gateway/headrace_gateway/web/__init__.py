"""HTTP: routes, problems, documentation, limits."""

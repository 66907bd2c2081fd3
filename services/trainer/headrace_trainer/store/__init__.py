"""Where samples, states and artifacts are kept."""

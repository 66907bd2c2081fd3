"""Speed of a replay."""

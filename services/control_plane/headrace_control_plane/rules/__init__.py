"""What rules mean: pure, with time and state passed in."""

"""Models that learn from the user-item matrix."""

"""Models that learn from the order of a history."""

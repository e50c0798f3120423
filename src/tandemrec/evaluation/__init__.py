"""Metrics and how a recommender is judged."""

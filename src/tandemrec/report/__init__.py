"""Leaderboards and tables."""

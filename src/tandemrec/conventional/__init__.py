"""Conventional recommenders: one model a file."""

"""Recipes, stages, the artifact store and the run."""

"""Rating prediction: feature-interaction models over one shared encoder, and the baselines they must beat."""

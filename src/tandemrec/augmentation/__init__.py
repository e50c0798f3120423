"""What a language model writes for conventional models, and the models that learn from it."""

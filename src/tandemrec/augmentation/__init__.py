"""What a language model writes for conventional models."""

"""Which training samples are worth fine-tuning on."""

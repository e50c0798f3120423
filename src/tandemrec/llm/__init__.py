"""Language models: building, prompting, fine-tuning, generation and grounding."""

"""Paraphrases by a language model: prompts, generation, validation."""

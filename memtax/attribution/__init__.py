"""Gradient-based attribution: alignment with paraphrases, influence of training examples."""

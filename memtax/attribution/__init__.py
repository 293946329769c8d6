"""What gradients say: alignment with paraphrases, influence of training examples."""

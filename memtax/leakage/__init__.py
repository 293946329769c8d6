"""What a model gives away about its training data: membership, paraphrases, gradients, influence."""

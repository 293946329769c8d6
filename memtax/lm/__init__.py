"""What a causal language model says about sequences: the forward pass and everything read off it."""

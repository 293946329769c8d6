"""Membership inference: attacks, evidence, estimates, the blind baseline, strong attacks, canaries."""

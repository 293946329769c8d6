"""Stages of the main job, and the computations of the verbs over sequences."""

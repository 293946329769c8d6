"""Stages of the main job, and what the verbs over sequences compute."""

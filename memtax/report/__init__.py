"""What people look at. Reads tables and `metrics.json` of a run only; computes nothing new."""

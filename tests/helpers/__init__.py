"""What test files share: tiny models, made runs, a Hub on loopback, and processes that start quickly."""

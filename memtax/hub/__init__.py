"""Cards, and pushing to and loading from the Hub."""

"""Cards, pushing and loading."""

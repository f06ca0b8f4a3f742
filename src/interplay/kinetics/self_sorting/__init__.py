"""Self-sorting arrays."""

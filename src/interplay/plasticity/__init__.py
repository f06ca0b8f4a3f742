"""Local learning rules."""

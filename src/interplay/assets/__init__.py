"""Data sets and models by name, cached and checksummed."""

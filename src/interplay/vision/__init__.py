"""Layers of vision models whose filters compete and inhibit one another."""

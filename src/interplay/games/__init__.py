"""Contests: many players, many rounds, and what their results say about them."""

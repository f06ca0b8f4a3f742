"""Dynamics of learning: update fields that are no gradient, and what they do to the landscape."""

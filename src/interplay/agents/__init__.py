"""Agents that decide when to act, at what cost, and whether to think first."""

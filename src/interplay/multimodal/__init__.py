"""Modalities that are trained together and compete: how to balance them, and how to tell which one is starved."""

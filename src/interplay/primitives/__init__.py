"""Pieces that several mechanisms share."""

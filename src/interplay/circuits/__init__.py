"""Circuits inside language models."""

"""Stochastic populations and reaction kinetics."""

"""Recurrent networks with fixed weights, whose states a linear readout learns from."""

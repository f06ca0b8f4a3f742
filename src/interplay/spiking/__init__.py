"""Spiking neurons and circuits."""

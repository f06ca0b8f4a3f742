"""Published systems whose parts compete, inhibit, balance, gate and steer one another."""

__version__ = "0.1.0"

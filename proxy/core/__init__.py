"""The pure machines: no I/O, no clock, no randomness."""

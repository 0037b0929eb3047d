"""The published formats as data. Decides nothing."""

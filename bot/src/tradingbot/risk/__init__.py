"""Risk: how large a position may be, and when no position may be opened."""

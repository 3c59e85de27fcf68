"""Binance Spot as a server, for paper trading, demos and tests."""

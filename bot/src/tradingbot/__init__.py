"""A Binance Spot trading bot: one process, one account, one symbol."""

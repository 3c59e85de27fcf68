"""The exchange as the bot sees it: one typed port, python-binance behind it."""

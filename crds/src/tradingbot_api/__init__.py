"""The contracts between user, operator and bot: the TradingBot resource and the protocol on the wire."""

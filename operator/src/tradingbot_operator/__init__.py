"""The kopf operator that runs one bot pod per TradingBot."""

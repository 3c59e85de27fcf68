"""The lab: what is run around the trading code without an exchange of its own."""

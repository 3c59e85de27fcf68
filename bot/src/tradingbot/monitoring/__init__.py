"""What the bot tells: health, metrics, performance and the protocol with the operator."""

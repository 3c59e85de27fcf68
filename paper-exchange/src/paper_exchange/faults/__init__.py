"""What goes wrong between clients and the exchange: decided here, without a clock, a socket or unseeded randomness."""

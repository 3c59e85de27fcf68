"""The trading engine: turns closed candles into decisions; pure, without clock or socket."""

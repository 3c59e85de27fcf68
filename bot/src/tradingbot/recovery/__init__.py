"""Error recovery: the circuit breaker, retries, safe mode and the fence between two traders."""

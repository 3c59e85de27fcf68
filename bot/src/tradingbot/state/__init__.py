"""State: the durable store, the ledger over fills, and the comparison with the account."""

"""The online store: Feast's own bytes in Redis, one writer with compare-and-set, one reader compiled from the contract."""

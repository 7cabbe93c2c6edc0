"""Point-in-time retrieval: what was known about a key at a time, read from the lake.

`semantics` says what that means, `duckdb` computes it, `feast_store` puts it behind Feast, `history` is the way in.
"""

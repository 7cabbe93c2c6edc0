"""Point-in-time retrieval: what was known about a key at a time, read from the lake.

`semantics` says what that means, `duckdb` computes it, `feast_store` puts it behind Feast, `history` is the way in.
"""

# Before Feast, whichever module of these imports that first: see lockstep/views/feast.py.
import prometheus_client  # noqa: F401  # pyright: ignore[reportUnusedImport]

"""Point-in-time retrieval: what was known about a key at a time, read from the lake.

`semantics` says what that means, `duckdb` computes it, `feast_store` puts it behind Feast, `history` is the way in.
"""

import prometheus_client  # noqa: F401 - before Feast, whichever module of these imports it first: see lockstep/views/feast.py

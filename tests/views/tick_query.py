"""A query of ticks over tables that a test made up."""

from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa

from lockstep.views.ticks import TickQuery, TickRange

# To make a database anew for each of a thousand queries takes twice as long as to answer them.
_DATABASE = duckdb.connect(config={"threads": 1})


def run_query(
    query: TickQuery[Any], ticks: TickRange, relations: Mapping[str, pa.Table], *, correct: bool = False
) -> pa.Table:
    """Answer the query from `all_rows`, of which it sees what is inside its bounds, and from what else it reads."""
    start, end = query.source_bounds(ticks)
    since = "TRUE" if start is None else f"event_us >= {start}"
    with _DATABASE.cursor() as connection:
        try:
            for name, rows in relations.items():
                connection.register(name, rows)
            connection.execute(
                f"CREATE OR REPLACE TEMP VIEW source AS SELECT * FROM all_rows WHERE {since} AND event_us < {end}"
            )
            connection.execute(
                f"CREATE OR REPLACE TEMP VIEW span AS SELECT {ticks.first} AS first, {ticks.last} AS last"
            )
            text = query.sql("duckdb", known_per_tick=ticks.known_per_tick, correct=correct)
            return connection.sql(text).to_arrow_table()
        finally:
            for name in relations:
                connection.unregister(name)

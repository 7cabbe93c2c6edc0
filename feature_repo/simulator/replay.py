"""Plays a world into the lake slice by slice, as the source systems would have delivered it."""

from datetime import datetime
from typing import Protocol

import pyarrow as pa

from feature_repo.simulator.world import SCHEMAS, World

# By day of a timestamp, where a read wants some days only. Of slowly changing rows the newest counts, however old it is:
# a read wants them all, and a file for each day on which somebody changed would be thousands of tiny ones.
_PARTITION_BY = {"transactions": "tx_datetime", "labels": "tx_datetime"}


class Lake(Protocol):
    """As much of `lockstep.lake.Lake` as the simulator needs."""

    def ensure_table(self, name: str, schema: pa.Schema, partition_by: str | None) -> object:
        """Create the table unless it is there; `partition_by` is a timestamp column, partitioned by day."""

    def append(self, name: str, rows: pa.Table, properties: dict[str, str] = ...) -> object:
        """Add `rows` in one commit."""


def append_slice(lake: Lake, world: World, start: datetime | None, end: datetime) -> dict[str, int]:
    """Append what became known in [start, end) and return the rows appended, by table.

    With `start` None this is the first slice, and begins with what was known before the world. A table without new rows is
    created but gets no commit. Nothing is remembered in between: the same slice appended twice is in the lake twice.

    Raises:
        ValueError: a time has no time zone, or `end` is before `start`.
    """
    slices = {name: world.known_between(name, start, end) for name in SCHEMAS}
    for name, rows in slices.items():
        lake.ensure_table(name, SCHEMAS[name], _PARTITION_BY.get(name))
        if rows.num_rows:
            lake.append(name, rows)
    return {name: rows.num_rows for name, rows in slices.items()}

"""Plays a world into the lake slice by slice, as the source systems would have delivered it."""

from datetime import datetime
from typing import Protocol

import pyarrow as pa

from feature_repo.simulator.world import SCHEMAS, World

_DIMENSIONS = ("customers", "terminals")
_EVENTS = ("transactions", "labels")


class Lake(Protocol):
    """As much of `lockstep.lake.Lake` as the simulator needs."""

    def ensure_table(self, name: str, schema: pa.Schema, partition_by: str | None) -> object:
        """Create the table unless it is there; `partition_by` is a timestamp column, partitioned by day."""

    def append(self, name: str, rows: pa.Table, properties: dict[str, str] = ...) -> object:
        """Add `rows` in one commit."""


def append_slice(lake: Lake, world: World, start: datetime | None, end: datetime) -> dict[str, int]:
    """Append what became known in [start, end) and return the rows appended, by table.

    With `start` None this is the first slice: it begins with the world and brings customers and terminals along,
    which later slices neither touch nor report. A table without new rows is created but gets no commit. Nothing is
    remembered in between: the same slice appended twice is in the lake twice.

    Raises:
        ValueError: a time has no time zone, or `end` is before `start`.
    """
    names = (*_DIMENSIONS, *_EVENTS) if start is None else _EVENTS
    slices = {name: world.known_between(name, start, end) for name in names}
    for name, rows in slices.items():
        lake.ensure_table(name, SCHEMAS[name], "tx_datetime" if name in _EVENTS else None)
        if rows.num_rows:
            lake.append(name, rows)
    return {name: rows.num_rows for name, rows in slices.items()}

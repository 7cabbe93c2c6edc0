"""The world that `lockstep ci` puts into a lake of its own: the plant, as the pipelines ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from lockstep.lake import Lake
from pump_care.plant import START, deliver, make_plant


@dataclass(frozen=True)
class Parameters:
    """When the plant's history begins."""

    start: datetime = START


@dataclass(frozen=True)
class Plant:
    """The plant's tables, and what they were made from."""

    parameters: Parameters
    tables: Mapping[str, pa.Table]


def make_world(size: int, days: int) -> Plant:
    """Return a plant of `size` pumps and as many days."""
    return Plant(Parameters(), make_plant(size, days))


def append_slice(lake: Lake, world: Plant, start: datetime | None, end: datetime) -> Mapping[str, int]:
    """Append what became known in [start, end); return how many rows each table has now."""
    deliver(lake, dict(world.tables), start, end)
    return {name: lake.table(name).scan().count() for name in world.tables}

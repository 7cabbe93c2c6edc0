"""A plant to run this use case on: pumps that shake more and more until they break down and are repaired.

The same plant every time: all random numbers follow from one seed.
"""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lockstep.clock import to_micros
from lockstep.lake import Lake

START = datetime(2021, 3, 1, tzinfo=UTC)
DAYS = 61
SECOND = 1_000_000
DAY = 86_400 * SECOND
EVERY = DAY // 8
WARNING = 3 * DAY
ENTERED = DAY // 24  # until what changed is on file

PUMPS = 64
# Day by site. Two sites open late: rows without a history in training, and rows without one when served.
OPENED = {101: 0, 102: 0, 103: 0, 104: 0, 105: 0, 106: 0, 107: 30, 108: 58}
WORST = 101
LATE = 0.02

_MOMENT = pa.timestamp("us", tz="UTC")

Columns = dict[str, NDArray[np.generic]]


def _schema(**own: pa.DataType) -> pa.Schema:
    common = {"reading_id": pa.int64(), "pump_id": pa.string(), "site_id": pa.int64(), "read_at": _MOMENT}
    return _fields(**common, **own)


def _fields(**kinds: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])


SCHEMAS = {
    "readings": _schema(vibration_um=pa.int64(), pressure_kpa=pa.int64(), received_at=_MOMENT),
    "outcomes": _schema(broke_down=pa.int64(), inspected_at=_MOMENT),
    "pumps": _fields(
        pump_id=pa.string(), changed_at=_MOMENT, rated_kpa=pa.int64(), repairs=pa.int64(), entered_at=_MOMENT
    ),
}
KNOWN_AT = {"readings": "received_at", "outcomes": "inspected_at", "pumps": "entered_at"}
EVENT_TIME = {"readings": "read_at", "outcomes": "read_at", "pumps": "changed_at"}


def make_plant(pumps: int = PUMPS, days: int = DAYS) -> dict[str, pa.Table]:
    """Return the tables of SCHEMAS, each in the order in which its rows become known."""
    rng = np.random.default_rng(20)
    lives = [_live(rng, number, days) for number in range(pumps)]
    columns = _together([readings for readings, _ in lives])
    rows = len(columns["read_at"])
    columns["reading_id"] = np.arange(rows)
    seconds = rng.integers(1, 120, rows) + (rng.random(rows) < LATE) * rng.integers(0, 3 * 3_600, rows)
    columns["received_at"] = columns["read_at"] + seconds * SECOND
    late = (rng.random(rows) < LATE) * rng.integers(1, DAY, rows)
    columns["inspected_at"] = columns["read_at"] + WARNING + late
    on_file = _together([file for _, file in lives])
    return {name: _table(name, on_file if name == "pumps" else columns) for name in SCHEMAS}


def deliver(lake: Lake, plant: dict[str, pa.Table], since: datetime | None, until: datetime) -> None:
    """Append what became known in [since, until) to the lake; None is the beginning."""
    for name, rows in plant.items():
        lake.ensure_table(name, rows.schema, EVENT_TIME[name])
        known_at = rows[KNOWN_AT[name]]
        known = pc.less(known_at, pa.scalar(until, _MOMENT))
        if since is not None:
            known = pc.and_(known, pc.greater_equal(known_at, pa.scalar(since, _MOMENT)))
        lake.append(name, rows.filter(known))


def _live(rng: np.random.Generator, number: int, days: int) -> tuple[Columns, Columns]:
    """Return one pump's readings and its file; it lives 12 to 36 days at a time, at the worst site half as long."""
    site = list(OPENED)[number % len(OPENED)]
    life = rng.uniform(12, 36, 20) / (2 if site == WORST else 1)
    breakdowns = np.cumsum(life * DAY).astype(np.int64) - rng.integers(0, 12 * DAY)
    time = np.arange(OPENED[site] * DAY, days * DAY, EVERY)
    time += rng.integers(0, EVERY // SECOND, len(time)) * SECOND
    left = breakdowns[np.searchsorted(breakdowns, time, side="right")] - time
    wear = np.exp(-left / (2 * DAY))
    vibration = rng.uniform(900, 2_400) * (1 + 1.5 * wear) * rng.lognormal(0, 0.2, len(time))
    rated = rng.normal(600, 20)
    pressure = rated - 60 * wear + rng.normal(0, 15, len(time))
    readings: Columns = {
        "read_at": to_micros(START) + time,
        "pump_id": np.full(len(time), f"P-{number:03d}"),
        "site_id": np.full(len(time), site),
        "vibration_um": vibration.astype(np.int64),
        "pressure_kpa": pressure.astype(np.int64),
        "broke_down": (left <= WARNING).astype(np.int64),
    }
    opened = OPENED[site] * DAY
    changed = np.append(opened, breakdowns[(breakdowns > opened) & (breakdowns < days * DAY)])
    file: Columns = {
        "pump_id": np.full(len(changed), f"P-{number:03d}"),
        "changed_at": to_micros(START) + changed,
        "rated_kpa": np.full(len(changed), int(rated)),
        "repairs": np.arange(len(changed)),
        "entered_at": to_micros(START) + changed + ENTERED,
    }
    return readings, file


def _together(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _table(name: str, columns: Columns) -> pa.Table:
    schema = SCHEMAS[name]
    order = np.argsort(columns[KNOWN_AT[name]], kind="stable")
    return pa.table([pa.array(columns[f.name][order]).cast(f.type) for f in schema], schema=schema)

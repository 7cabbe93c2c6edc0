"""Which served rows are judged: a uniform hash sample for the bound, and a stratified one in which any mismatch fails."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson
import pyarrow as pa

from lockstep.clock import from_micros
from lockstep.contract import FeatureContract
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange, connect
from lockstep.online.epoch import Epochs
from lockstep.serving.log_rows import SCHEMA, SERVED_LOG, UNIFORM, decode_values
from lockstep.settings import Settings

PER_STRATUM = 5
_FLOATS = {"float32", "float64"}
# Whole microseconds: Python's own times cost more than all the rest of a row.
_MICROS = """
    epoch_us(request_time) AS request_time, epoch_us(read_time) AS read_time,
    list_transform(views, lambda v: {
        'view': v.view, 'status': v.status, 'values': v."values",
        'event_timestamp': epoch_us(v.event_timestamp), 'created_timestamp': epoch_us(v.created_timestamp)
    }) AS views
"""
# Over the whole log, so that neither a window's edge nor a trimmed beginning looks like anything but what it is.
_LOST = """
    SELECT coalesce(max(1 - arrived / last), 0) FROM (
        SELECT max(counter) AS last, count(DISTINCT counter) AS arrived FROM ever
        WHERE process IN (SELECT process FROM ever WHERE model = $model AND shadow = $shadow)
        GROUP BY process
    )
"""


@dataclass(frozen=True)
class ServedView:
    """What was read of one view: its status, the row's (event, created) and the stored values."""

    status: str
    event_us: int | None
    created_us: int | None
    values: Mapping[str, Any]

    def holds(self, column: str, value: Any) -> bool:
        """Tell whether a column was read with this value; one that the log does not name holds nothing, not even null."""
        return column in self.values and self.values[column] == value


@dataclass(frozen=True)
class ServedRow:
    """One row of the served log, decoded."""

    request_id: str
    row: int
    request_us: int
    read_us: int
    inputs: Mapping[str, Any]
    keys: Mapping[str, Any]
    before: Epochs
    after: Epochs
    views: Mapping[str, ServedView]
    vector: tuple[float | None, ...]
    contract: str
    model: str
    score: float | None
    flags: tuple[str, ...]
    uniform: bool
    process: str
    counter: int
    rejected: str | None = None

    @property
    def name(self) -> str:
        """What names the row: our own number for it, since a caller may use a request id twice."""
        return f"{self.process}/{self.counter}"

    @property
    def rank(self) -> bytes:
        """Where the row stands in the uniform order: a hash of its name, which no caller can steer."""
        return hashlib.sha256(self.name.encode()).digest()


@dataclass(frozen=True)
class Served:
    """The served rows of a window.

    Attributes:
        rows: the rows of the model, by rank.
        lost: the share of log rows that never arrived, of the process that lost most; each numbers its rows from 1.
    """

    rows: tuple[ServedRow, ...]
    lost: float


def read_served(
    settings: Settings,
    lake: Lake,
    *,
    model: str,
    contract: FeatureContract,
    shadow: bool,
    since: datetime,
    until: datetime,
) -> Served:
    """Return what a model served in `[since, until)`, by request time.

    Args:
        settings: for the embedded engine.
        lake: where the served log is.
        model: the model's digest.
        contract: the contract its rows must name.
        shadow: whether shadow rows are wanted, or live ones.
        since: first request time.
        until: end of the request times.
    """
    if not lake.exists(SERVED_LOG):
        return Served((), 0.0)
    with connect(settings) as connection:
        within = TimeRange("request_time", since, until)
        lake.register(connection, "served", SERVED_LOG, columns=SCHEMA.names, within=within)
        lake.register(connection, "ever", SERVED_LOG, columns=["process", "counter", "model", "shadow"])
        (lost,) = connection.execute(_LOST, {"model": model, "shadow": shadow}).fetchall()[0]
        logged: pa.Table = connection.sql(
            f"SELECT * REPLACE ({_MICROS}) FROM served WHERE model = $model AND contract = $contract AND shadow = $shadow",
            params={"model": model, "contract": contract.hash, "shadow": shadow},
        ).to_arrow_table()
    floats = {view.name: {c.name for c in view.columns if c.dtype in _FLOATS} for view in contract.views}
    rows = [_decode(row, floats) for row in logged.to_pylist()]
    return Served(tuple(sorted(rows, key=lambda row: row.rank)), float(lost))


def uniform(rows: Sequence[ServedRow], size: int) -> tuple[ServedRow, ...]:
    """Return the first `size` rows, in rank order, of those that were logged as uniform."""
    return tuple(row for row in rows if row.uniform)[:size]


def stratified(rows: Iterable[ServedRow]) -> dict[str, tuple[ServedRow, ...]]:
    """Return a few rows, in rank order, of every hour, flag and view status that occurs."""
    strata: defaultdict[str, list[ServedRow]] = defaultdict(list)
    for row in rows:
        names = [f"hour {from_micros(row.request_us):%Y-%m-%dT%H}Z"]
        names += [f"flag {flag}" for flag in row.flags]
        names += [f"view {name} {view.status}" for name, view in row.views.items()]
        for name in names:
            if len(strata[name]) < PER_STRATUM:
                strata[name].append(row)
    return {name: tuple(strata[name]) for name in sorted(strata)}


def _decode(row: Mapping[str, Any], floats: Mapping[str, set[str]]) -> ServedRow:
    return ServedRow(
        request_id=row["request_id"],
        row=row["row"],
        request_us=row["request_time"],
        read_us=row["read_time"],
        inputs=orjson.loads(row["inputs"]),
        keys=orjson.loads(row["entity_keys"]),
        before=_epochs(row["epoch_before"]),
        after=_epochs(row["epoch_after"]),
        views={
            view["view"]: ServedView(
                status=view["status"],
                event_us=view["event_timestamp"],
                created_us=view["created_timestamp"],
                values=decode_values(view["values"], floats.get(view["view"], set())),
            )
            for view in row["views"]
        },
        vector=tuple(row["vector"]),
        contract=row["contract"],
        model=row["model"],
        score=row["score"],
        flags=tuple(row["flags"]),
        uniform=row["why"] == UNIFORM,
        process=row["process"],
        counter=row["counter"],
        rejected=row["rejected"],
    )


@lru_cache(maxsize=1024)
def _epochs(text: str) -> Epochs:
    """Read a reading of the epoch hash; it changes a few times an hour, and each row of a request has the same two."""
    return Epochs.from_json(text)

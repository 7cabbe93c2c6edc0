"""Which served rows are judged: a uniform hash sample for the bound, and a stratified one in which any mismatch fails.

The log is read twice: what choosing goes by of all rows of a window, then the chosen rows whole.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import duckdb
import orjson
import pyarrow as pa

from lockstep.clock import to_micros
from lockstep.contract import FeatureContract
from lockstep.errors import SchemaDrift, Terminal
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange, connect
from lockstep.lake.snapshots import NO_SNAPSHOT
from lockstep.online.epoch import Epochs
from lockstep.serving.log_rows import SCHEMA, SERVED_LOG, UNIFORM, decode_values
from lockstep.settings import Settings

PER_STRATUM = 5
_FLOATS = {"float32", "float64"}
_PART_ROWS = 10_000
# Whole microseconds: Python's own times cost more than all the rest of a row.
_MICROS = """
    epoch_us(request_time) AS request_time, epoch_us(read_time) AS read_time,
    list_transform(views, lambda v: {
        'view': v.view, 'status': v.status, 'values': v."values",
        'event_timestamp': epoch_us(v.event_timestamp), 'created_timestamp': epoch_us(v.created_timestamp)
    }) AS views
"""
# Each a name of its own, so that of every hour, process, flag, status and null there are a few rows, however rare they are.
_STRATA = """
    list_distinct(list_concat(
        ['hour ' || strftime(request_time, '%Y-%m-%dT%HZ'), 'process ' || process],
        list_transform(flags, lambda flag: 'flag ' || flag),
        list_transform(views, lambda v: 'view ' || v.view || ' ' || v.status),
        list_transform(
            list_filter(range(1, len(vector) + 1), lambda n: vector[n] IS NULL), lambda n: 'null ' || $features[n]
        )
    ))
"""
# Of each process that served rows of the window, the numbers that are missing beside a row of the window, over the whole log: so
# neither a window's edge looks like a loss, nor does a long past dilute one, nor is an old one held against it.
_LOST = """
    WITH numbered AS (
        SELECT process, counter, bool_or(epoch_us(request_time) >= $since AND epoch_us(request_time) < $until) AS inside
        FROM ever WHERE process IN (SELECT process FROM served WHERE model = $model AND shadow = $shadow)
        GROUP BY process, counter
    ), gaps AS (
        SELECT process, inside, counter - 1 - lag(counter, 1, 0) OVER of_process AS missing,
            inside OR coalesce(lag(inside) OVER of_process, FALSE) AS beside
        FROM numbered WINDOW of_process AS (PARTITION BY process ORDER BY counter)
    )
    SELECT coalesce(max(missing / (missing + arrived)), 0) FROM (
        SELECT coalesce(sum(missing) FILTER (beside), 0) AS missing, count(*) FILTER (inside) AS arrived
        FROM gaps GROUP BY process
    )
"""
# Rows of the model that share a name and are not the same row.
_TWICE = """
    SELECT coalesce(sum(of_name), 0) FROM (
        SELECT count(*) AS of_name FROM (
            SELECT DISTINCT * FROM served SEMI JOIN (
                SELECT process, counter FROM served WHERE model = $model AND shadow = $shadow
                GROUP BY process, counter HAVING count(*) > 1
            ) USING (process, counter)
            WHERE model = $model AND shadow = $shadow
        ) GROUP BY process, counter HAVING of_name > 1
    )
"""


@dataclass(frozen=True)
class Window:
    """Which rows of the served log are asked about.

    Attributes:
        model: the digest of the model that answered.
        contract: the contract they must name: the model's, or its fallback's.
        shadow: shadow rows, or live ones.
        since: first request time.
        until: end of the request times.
        snapshot_id: the log as of this snapshot; None is the newest.
    """

    model: str
    contract: FeatureContract
    shadow: bool
    since: datetime
    until: datetime
    snapshot_id: int | None = None


@dataclass(frozen=True, slots=True)
class Logged:
    """What choosing goes by of one row of the served log.

    Attributes:
        strata: what the row is one of few examples of.
    """

    process: str
    counter: int
    uniform: bool
    strata: tuple[str, ...]

    @property
    def name(self) -> str:
        """What names the row: our own number for it, since a caller may use a request id twice."""
        return f"{self.process}/{self.counter}"


@dataclass(frozen=True)
class WindowFound:
    """What the log holds of a window.

    Attributes:
        rows: the rows of the model and its contract.
        foreign: rows of the model that name another contract than the model's own or its fallback's, or none.
        lost: the share of the window's rows that never arrived, of the process that lost most; each numbers its rows from 1.
        snapshot_id: which snapshot of the log was read; `NO_SNAPSHOT` where there is none.
        twice: rows of the model that have a name which another one has, without being the same row.
    """

    rows: tuple[Logged, ...]
    foreign: int
    lost: float
    snapshot_id: int
    twice: int = 0


@dataclass(frozen=True)
class ServedView:
    """What was read of one view: its status, the row's (event, created) and the stored values."""

    status: str
    event_us: int | None
    created_us: int | None
    values: Mapping[str, Any]

    def holds(self, column: str, value: Any) -> bool:
        """Tell whether a column was read with this value; one that the log does not name holds nothing, not even null."""
        return column in self.values and same(self.values[column], value)


@dataclass(frozen=True)
class ServedRow:
    """One row of the served log, decoded.

    Attributes:
        strata: as `Logged` has them.
    """

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
    strata: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What names the row: our own number for it, since a caller may use a request id twice."""
        return f"{self.process}/{self.counter}"


def same(one: Any, other: Any) -> bool:
    """Tell whether two stored values are equal: null is null, NaN is NaN, 0.0 is -0.0."""
    return one == other or (one != one and other != other)  # noqa: PLR0124 - NaN is unequal to itself


class _Choosable(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def uniform(self) -> bool: ...
    @property
    def strata(self) -> tuple[str, ...]: ...


_Row = TypeVar("_Row", bound=_Choosable)


def rank(seed: int, name: str) -> bytes:
    """Return where a row stands in the order of a seed: a hash of the seed and its name, which no caller can steer."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def uniform(rows: Iterable[_Row], size: int, seed: int) -> tuple[_Row, ...]:
    """Return the first `size` rows, in the seed's order, of those that were logged as uniform."""
    return tuple(sorted((row for row in rows if row.uniform), key=lambda row: rank(seed, row.name))[:size])


def stratified(rows: Iterable[_Row], seed: int) -> dict[str, tuple[_Row, ...]]:
    """Return a few rows, in the seed's order, of every hour, process, flag, view status and null that occurs."""
    strata: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: rank(seed, row.name)):
        for name in row.strata:
            if len(strata[name]) < PER_STRATUM:
                strata[name].append(row)
    return {name: tuple(strata[name]) for name in sorted(strata)}


def find_served(settings: Settings, lake: Lake, window: Window, *, known: Iterable[str] = ()) -> WindowFound:
    """Return what the log holds of a window, without the rows themselves.

    Args:
        settings: for the embedded engine.
        lake: where the served log is.
        window: which rows.
        known: the hashes of the contracts that the model's rows may name, beside the window's.
    """
    if not lake.exists(SERVED_LOG):
        return WindowFound((), 0, 0.0, NO_SNAPSHOT)
    current = lake.current(SERVED_LOG)
    snapshot_id = window.snapshot_id if window.snapshot_id is not None else current.id if current else NO_SNAPSHOT
    with connect(settings) as connection:
        _register(connection, lake, window, snapshot_id)
        ever = ["process", "counter", "request_time"]
        lake.register(connection, "ever", SERVED_LOG, columns=ever, snapshot_id=snapshot_id)
        whose = {"model": window.model, "shadow": window.shadow}
        times = {"since": to_micros(window.since), "until": to_micros(window.until)}
        ((lost,),) = connection.execute(_LOST, {**whose, **times}).fetchall()
        ((twice,),) = connection.execute(_TWICE, whose).fetchall()
        of_model = "FROM served WHERE model = $model AND shadow = $shadow"
        contracts = [window.contract.hash, *known]
        ((foreign,),) = connection.execute(
            f"SELECT count(*) {of_model} AND (contract IS NULL OR NOT list_contains($contracts, contract))",
            {**whose, "contracts": contracts},
        ).fetchall()
        logged: pa.Table = connection.sql(
            f"SELECT process, counter, why = $uniform AS uniform, {_STRATA} AS strata {of_model} AND contract = $contract "
            "ORDER BY ALL",
            params={
                **whose,
                "uniform": UNIFORM,
                "contract": window.contract.hash,
                "features": [f"{f.view}:{f.name}" for f in window.contract.features],
            },
        ).to_arrow_table()
    # A row that is in the log twice is one row.
    rows = {
        (row["process"], row["counter"]): Logged(
            row["process"], row["counter"], row["uniform"], _interned(tuple(row["strata"]))
        )
        for part in logged.to_batches(_PART_ROWS)
        for row in part.to_pylist()
    }
    return WindowFound(tuple(rows.values()), foreign, float(lost), snapshot_id, int(twice))


def read_rows(settings: Settings, lake: Lake, window: Window, chosen: Sequence[Logged]) -> tuple[ServedRow, ...]:
    """Return rows that `find_served` found in the window, whole, in the order in which they are given.

    Raises:
        SchemaDrift: one of them is none that a transformer logs.
    """
    if not chosen:
        return ()
    floats = {view.name: {c.name for c in view.columns if c.dtype in _FLOATS} for view in window.contract.views}
    strata = {(row.process, row.counter): row.strata for row in chosen}
    wanted = pa.table({"process": [row.process for row in chosen], "counter": [row.counter for row in chosen]})
    with connect(settings) as connection:
        _register(connection, lake, window, window.snapshot_id)
        connection.register("wanted", wanted)
        found: pa.Table = connection.sql(
            f"SELECT DISTINCT * REPLACE ({_MICROS}) FROM served SEMI JOIN wanted USING (process, counter) "
            "WHERE model = $model AND shadow = $shadow AND contract = $contract ORDER BY ALL",
            params={"model": window.model, "shadow": window.shadow, "contract": window.contract.hash},
        ).to_arrow_table()
    rows: dict[tuple[str, int], ServedRow] = {}
    for row in (row for part in found.to_batches(_PART_ROWS) for row in part.to_pylist()):
        named = row["process"], row["counter"]
        try:
            rows[named] = _decode(row, floats, strata[named])
        except (AttributeError, KeyError, TypeError, ValueError, Terminal) as wrong:
            raise _no_row(*named, repr(wrong)) from wrong
        if len(rows[named].vector) != len(window.contract.features):
            features = len(window.contract.features)
            raise _no_row(*named, f"its vector has {len(rows[named].vector)} values, its contract {features} features")
    for row in chosen:
        if (row.process, row.counter) not in rows:
            raise _no_row(row.process, row.counter, "it has no process or no counter")
    return tuple(rows[row.process, row.counter] for row in chosen)


def _no_row(process: str | None, counter: int | None, why: str) -> SchemaDrift:
    return SchemaDrift(
        f"row {process}/{counter} of {SERVED_LOG} cannot be read: {why}",
        hint="it is none that a transformer logs: take the process out of service, and verify a window without its rows",
    )


def read_served(settings: Settings, lake: Lake, window: Window) -> tuple[ServedRow, ...]:
    """Return all rows of a window, whole, in the order in which each process served them."""
    found = find_served(settings, lake, window)
    chosen = sorted(found.rows, key=lambda row: (row.process, row.counter))
    return read_rows(settings, lake, replace(window, snapshot_id=found.snapshot_id), chosen)


def _register(connection: duckdb.DuckDBPyConnection, lake: Lake, window: Window, snapshot_id: int | None) -> None:
    within = TimeRange("request_time", window.since, window.until)
    lake.register(connection, "served", SERVED_LOG, columns=SCHEMA.names, within=within, snapshot_id=snapshot_id)


def _decode(row: Mapping[str, Any], floats: Mapping[str, set[str]], strata: tuple[str, ...]) -> ServedRow:
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
        strata=strata,
        rejected=row["rejected"],
    )


@lru_cache(maxsize=1024)
def _epochs(text: str) -> Epochs:
    """Read a reading of the epoch hash; it changes a few times an hour, and each row of a request has the same two."""
    return Epochs.from_json(text)


@lru_cache(maxsize=4096)
def _interned(strata: tuple[str, ...]) -> tuple[str, ...]:
    """Return the same tuple for the same strata: of a million rows there are a few hundred kinds."""
    return strata

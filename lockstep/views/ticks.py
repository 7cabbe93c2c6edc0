"""What every kind of view tells `compute` about its rows at ticks: what to read, and one query over it.

The query reads its range of ticks from a one-row relation, so that its text depends on the view and the mode alone and is
compiled once a process: with the range in the text, ibis took two thirds of a live tick.

Ticks are counted: tick number n is the time `n * every` after 1970-01-01T00:00Z. A row at time u, known at k, that is read
`delay` after it happened

    arrives at  n = floor((u + delay) / every) + 1            (never before it is known, if knowledge is judged per tick)
"""
# ibis gives a column its kind (integer, string) at run time only, so arithmetic on columns cannot be checked before.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import ibis
import ibis.expr.types as ir

from lockstep.clock import MICROSECOND, to_micros
from lockstep.views.declare import DataType, StoredView

SOURCE = "source"
ANSWERED = "answered"
WRITTEN = "written"
SPAN = "span"
KEY = "key"
EVENT_MICROS = "event_us"
KNOWN_MICROS = "known_us"
TICK = "tick"
FIRST = "first"
LAST = "last"

_View_co = TypeVar("_View_co", bound=StoredView, covariant=True)
_IBIS_TYPES: Mapping[DataType, str] = {"bytes": "binary", "timestamp": "timestamp('UTC')"}
_TEXTS: dict[tuple[object, ...], str] = {}


@dataclass(frozen=True)
class TickRange:
    """The ticks `after < n <= last`, by number.

    Attributes:
        known_per_tick: True in bootstrap: a row is read by a tick only if it was known compute_lag after it. False when
            live: every row of the named snapshots is known to every tick of the range.
    """

    after: int
    last: int
    known_per_tick: bool

    @property
    def first(self) -> int:
        """The first tick of the range."""
        return self.after + 1


@dataclass(frozen=True)
class TickQuery(ABC, Generic[_View_co]):
    """How the rows of one view are computed; each kind of view has its own.

    The query reads three relations:

    * `source`: `key`, `event_us`, `known_us` (microseconds) and `source_columns`, of the rows within `source_bounds`;
    * `answered`: at most one row a key, `key` and `answer_columns`: what the view's table answers at the range's first tick;
    * `span`: one row, the numbers of the `first` and the `last` tick.

    To correct ticks it reads these and `feature_columns` of what the table has: `answered` with the `tick` of its rows, and

    * `written`: the newest row a key and tick within the range, with its `key` and `tick`.
    """

    view: _View_co

    @property
    @abstractmethod
    def source_columns(self) -> dict[str, str]:
        """What is read of the source besides key and times: the name in the relation, and the source's column."""

    @property
    @abstractmethod
    def source_types(self) -> dict[str, DataType]:
        """The source's columns that are read besides key and times, with types that hold each of their values."""

    @property
    @abstractmethod
    def answer_columns(self) -> dict[str, str]:
        """What is compared with the view's table: the name in the relation, and the table's column."""

    @property
    @abstractmethod
    def feature_columns(self) -> dict[str, str]:
        """What correct compares with the view's table, every feature in order: the name in the relation, and the column."""

    @property
    @abstractmethod
    def answers_for(self) -> timedelta | None:
        """How old a row of the view's table may be and still answer at the first tick; None is no limit."""

    @abstractmethod
    def source_bounds(self, ticks: TickRange) -> tuple[int | None, int]:
        """Return the half-open range of event times, in microseconds, of rows that can still matter; None is no bound."""

    @abstractmethod
    def rows(self, *, known_per_tick: bool) -> ir.Table:
        """Return the feature rows to write: key, tick number, then the view's features in order, under any names."""

    @abstractmethod
    def corrected_rows(self, *, known_per_tick: bool) -> ir.Table:
        """Return the rows that correct the table's answers at the range's ticks, in the same columns as `rows`.

        After them the table answers, at each tick, with the view's values. Where the view has no value and the table answers
        with one, the row says that there is nothing: zeros of a windowed view, nulls of a latest one.
        """

    def sql(self, dialect: str, *, known_per_tick: bool, correct: bool = False) -> str:
        """Return `rows`, or `corrected_rows`, as SQL of an engine."""
        view = self.view
        decides = (view.definition_hash, view.ttl, view.compute_lag, known_per_tick, correct, dialect)
        if decides not in _TEXTS:
            rows = self.corrected_rows if correct else self.rows
            _TEXTS[decides] = str(ibis.to_sql(rows(known_per_tick=known_per_tick), dialect=dialect))
        return _TEXTS[decides]


def tick_number(view: StoredView, time: datetime) -> int:
    """Return the number of the last tick at or before `time`."""
    return to_micros(time) // (view.every // MICROSECOND)


def span() -> tuple[ir.Value, ir.Value]:
    """Return the first and the last tick of the range as expressions."""
    ticks = ibis.table({FIRST: "int64", LAST: "int64"}, name=SPAN)
    return ticks[FIRST].as_scalar(), ticks[LAST].as_scalar()


def source_table(view: StoredView, columns: Mapping[str, DataType]) -> ir.Table:
    """Return the relation `source` with these columns besides key and times."""
    times: dict[str, DataType] = {EVENT_MICROS: "int64", KNOWN_MICROS: "int64"}
    return _table(SOURCE, {KEY: view.entity.dtype, **times, **columns})


def answered_table(view: StoredView, columns: Mapping[str, DataType]) -> ir.Table:
    """Return the relation `answered` with these columns besides the key."""
    return _table(ANSWERED, {KEY: view.entity.dtype, **columns})


def written_table(view: StoredView, columns: Mapping[str, DataType]) -> ir.Table:
    """Return the relation `written` with these columns besides key and tick."""
    return _table(WRITTEN, {KEY: view.entity.dtype, TICK: "int64", **columns})


def _table(name: str, columns: Mapping[str, DataType]) -> ir.Table:
    return ibis.table({column: _IBIS_TYPES.get(dtype, dtype) for column, dtype in columns.items()}, name=name)


def arrival(view: StoredView, source: ir.Table, delay: timedelta, *, known_per_tick: bool) -> ir.Value:
    """Return the number of the first tick that sees a source row."""
    every = view.every // MICROSECOND
    arrives = floor(source[EVENT_MICROS] + delay // MICROSECOND, every) + 1
    if not known_per_tick:
        return arrives
    return ibis.greatest(arrives, -floor(view.compute_lag // MICROSECOND - source[KNOWN_MICROS], every))


def next_beat(start: ir.Value, phase: ir.Value, period: int) -> ir.Value:
    """Return the first tick from `start` on that is a key's heartbeat, one in `period` ticks."""
    return start + ((phase - start) % period + period) % period


def phase_of(key: ir.Value, period: int) -> ir.Value:
    """Return a number below `period` from the key's MD5, which every engine has."""
    text = key.cast("string").hexdigest("md5")
    digits = "0123456789abcdef"
    number = ibis.literal(0, "int64")
    for position in range(4):
        number = number * 16 + ibis.literal(digits).find(text.substr(position, 1)).cast("int64")
    return number % period


def floor(value: ir.Value, step: int) -> ir.Value:
    """Return the integer quotient rounded down, also below zero.

    ibis divides through float64, which is exact for whole multiples below 2^53: so the remainder goes first.
    """
    remainder = ((value % step) + step) % step
    return ((value - remainder) // step).cast("int64")

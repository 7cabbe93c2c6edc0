"""The rows of a windowed view for a range of ticks, as one ibis expression over change points.

A source row enters a window at one tick and leaves it at another, so the state of a key changes only at these ticks; a
running sum over them is the value at any tick. Work grows with source rows times windows plus one heartbeat a live key and
day, never with keys times ticks. Engines sum integers only; each ratio is one float64 division at the end, so that every
engine gives the same bits.

Ticks are counted: tick number n is the time `n * every` after 1970-01-01T00:00Z. A row at time u, known at k, is in the window
of length W of tick T when `T - delay - W <= u < T - delay`, hence

    enters at   n = floor((u + delay) / every) + 1            (never before it is known, if knowledge is judged per tick)
    leaves at   n = floor((u + delay + W) / every) + 1
"""
# ibis gives a column its kind (integer, string) at run time only, so arithmetic on columns cannot be checked before.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from dataclasses import dataclass
from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir

from lockstep.clock import MICROSECOND, to_micros
from lockstep.views.declare import WindowedView

KEY = "key"
EVENT_MICROS = "event_us"
KNOWN_MICROS = "known_us"
TICK = "tick"


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


def tick_number(view: WindowedView, time: datetime) -> int:
    """Return the number of the last tick at or before `time`."""
    return to_micros(time) // (view.every // MICROSECOND)


def source_bounds(view: WindowedView, ticks: TickRange) -> tuple[int, int]:
    """Return the half-open range of event times, in microseconds, of rows that can still matter to these ticks.

    It reaches back a ttl beyond the longest window: a key lives that long after its last row left.
    """
    every, delay = view.every // MICROSECOND, view.delay // MICROSECOND
    reach = delay + (max(view.windows) + _life_after_windows(view)) // MICROSECOND
    return ticks.first * every - reach - every, ticks.last * every - delay


def tick_sql(view: WindowedView, ticks: TickRange, dialect: str) -> str:
    """Return `tick_rows` as SQL of an engine, over relations named `source` and `answered`."""
    return str(ibis.to_sql(tick_rows(view, ticks), dialect=dialect))


def tick_rows(view: WindowedView, ticks: TickRange) -> ir.Table:
    """Return the feature rows to write: key, tick number, and each measure and ratio by window.

    A row is written when its value differs from what the view's table answers at that tick, and once a day for each
    live key (the heartbeat, spread over the day by a hash of the key).

    The expression reads two unbound tables:

    * `source`: rows with `key`, `event_us`, `known_us` and the columns the measures add up, within `source_bounds`;
    * `answered`: one row a key, `key` and the measure columns: what the view's table answers at the range's first tick.

    Args:
        view: the view.
        ticks: the range.
    """
    key = view.entity.dtype
    summed = {m.column: "int64" for m in view.measures if m.column}
    source = ibis.table({KEY: key, EVENT_MICROS: "int64", KNOWN_MICROS: "int64", **summed}, name="source")
    state = {view.column(m.name, w): "int64" for m in view.measures for w in view.windows}
    answered = ibis.table({KEY: key, **state}, name="answered")
    entries = _entries(view, source, ticks)
    measures = [view.column(m.name, w) for m in view.measures for w in view.windows]
    changes = ibis.union(_changes(view, entries, ticks), _heartbeats(view, entries, ticks, measures), distinct=False)
    steps = changes.group_by([KEY, TICK]).aggregate(
        heartbeat=changes["heartbeat"].max(), **{c: changes[c].sum() for c in measures}
    )
    running = ibis.window(group_by=KEY, order_by=TICK, preceding=None, following=0)
    states = steps.select(KEY, TICK, "heartbeat", **{c: steps[c].sum().over(running) for c in measures})
    by_tick = ibis.window(group_by=KEY, order_by=TICK)
    before = states.mutate(
        **{f"{c}_before": states[c].lag().over(by_tick) for c in measures},
        is_first=ibis.row_number().over(by_tick) == 0,
    )
    known = answered.rename({f"{c}_answered": c for c in measures}).rename({"answered_key": KEY})
    joined = before.left_join(known, before[KEY] == known["answered_key"])
    changed = ibis.or_(
        *[
            ~joined[c].identical_to(ibis.ifelse(joined["is_first"], joined[f"{c}_answered"], joined[f"{c}_before"]))
            for c in measures
        ]
    )
    written = joined.filter(ibis.or_(joined["heartbeat"] == 1, changed))
    return written.select(KEY, TICK, *measures, **_ratios(view, written))


def _life_after_windows(view: WindowedView) -> timedelta:
    """Return how long a key lives after its last row left the longest window: its ttl, or a tick where rows never expire."""
    return max(view.ttl, view.every)


def _entries(view: WindowedView, source: ir.Table, ticks: TickRange) -> ir.Table:
    """Return the source rows with the tick they arrive at, the tick of the range they enter at, and when their key dies."""
    every, delay = view.every // MICROSECOND, view.delay // MICROSECOND
    shifted = source[EVENT_MICROS] + delay
    arrives = _floor(shifted, every) + 1
    if ticks.known_per_tick:
        lag = view.compute_lag // MICROSECOND
        arrives = ibis.greatest(arrives, -_floor(lag - source[KNOWN_MICROS], every))
    enters = ibis.greatest(arrives, ibis.literal(ticks.first, "int64"))
    amounts = {m.name: (source[m.column] if m.column else ibis.literal(1)).cast("int64") for m in view.measures}
    life = (max(view.windows) + _life_after_windows(view)) // MICROSECOND
    leaves = {
        f"leaves_{n}": _floor(shifted + window // MICROSECOND, every) + 1 for n, window in enumerate(view.windows)
    }
    rows = source.select(
        KEY, arrives=arrives, enters=enters, dies=-_floor(-(shifted + life), every), **leaves, **amounts
    )
    return rows.filter(rows["enters"] <= ticks.last, rows["enters"] < rows["dies"])


def _changes(view: WindowedView, entries: ir.Table, ticks: TickRange) -> ir.Table:
    """Return one row where a source row enters, and one where it leaves each window."""

    def amounts(of: ir.Table, sign: int, windows: set[int]) -> dict[str, ir.Value]:
        return {
            view.column(m.name, w): ibis.ifelse(of["enters"] < of[f"leaves_{n}"], sign * of[m.name], 0)
            if n in windows
            else ibis.literal(0, "int64")
            for m in view.measures
            for n, w in enumerate(view.windows)
        }

    every_window = set(range(len(view.windows)))
    entering = entries.select(KEY, tick=entries["enters"], heartbeat=_NO, **amounts(entries, 1, every_window))
    leaving = []
    for n in every_window:
        left = entries.filter(entries["enters"] < entries[f"leaves_{n}"], entries[f"leaves_{n}"] <= ticks.last)
        leaving.append(left.select(KEY, tick=left[f"leaves_{n}"], heartbeat=_NO, **amounts(left, -1, {n})))
    return ibis.union(entering, *leaving, distinct=False)


def _heartbeats(view: WindowedView, entries: ir.Table, ticks: TickRange, measures: list[str]) -> ir.Table:
    """Return one row a live key and day, adding nothing, at the tick of the day that the key's hash names.

    The first tick of a life is one too, so that from then on the table always answers with a row inside its ttl.
    """
    by_entry = ibis.window(group_by=KEY, order_by="arrives")
    so_far = ibis.window(group_by=KEY, order_by="arrives", preceding=None, following=0)
    arrivals = entries.group_by([KEY, "arrives"]).aggregate(dies=entries["dies"].max())
    lives = arrivals.mutate(lives_until=arrivals["dies"].max().over(so_far))
    lives = lives.mutate(lived_until=lives["lives_until"].lag().over(by_entry).fill_null(lives["arrives"] - 1))
    end = ibis.literal(ticks.last + 1, "int64")
    spans = lives.select(
        KEY,
        "arrives",
        # Equal: a row arrives just as its key would die, and the life goes on.
        begins=lives["lived_until"] < lives["arrives"],
        start=ibis.greatest(lives["arrives"], ibis.literal(ticks.first, "int64")),
        end=ibis.least(lives["lives_until"], lives["arrives"].lead().over(by_entry).fill_null(ticks.last + 1), end),
    )
    phases = spans.select(KEY).distinct()
    phases = phases.select(phase_key=phases[KEY], phase=_phase(phases[KEY], view.ticks_per_day))
    phased = spans.left_join(phases, spans[KEY] == phases["phase_key"])
    per_day = view.ticks_per_day
    wait = (phased["phase"] - phased["start"]) % per_day
    beats = phased.select(KEY, "end", beat=phased["start"] + (wait + per_day) % per_day)
    beats = beats.filter(beats["beat"] < beats["end"])
    daily = beats.select(KEY, tick=ibis.range(beats["beat"], beats["end"], per_day).unnest())
    begun = spans.filter(spans["begins"], spans["arrives"] >= ticks.first)
    each = ibis.union(daily, begun.select(KEY, tick=begun["arrives"]), distinct=False)
    return each.select(KEY, TICK, heartbeat=_YES, **{c: ibis.literal(0, "int64") for c in measures})


def _phase(key: ir.Value, ticks_per_day: int) -> ir.Value:
    """Return a number below `ticks_per_day` from the key's MD5, which every engine has."""
    text = key.cast("string").hexdigest("md5")
    digits = "0123456789abcdef"
    number = ibis.literal(0, "int64")
    for position in range(4):
        number = number * 16 + ibis.literal(digits).find(text.substr(position, 1)).cast("int64")
    return number % ticks_per_day


def _ratios(view: WindowedView, rows: ir.Table) -> dict[str, ir.Value]:
    """Return each ratio by window, as one float64 division of two integers."""
    ratios: dict[str, ir.Value] = {}
    for quotient in view.ratios:
        for window in view.windows:
            below = rows[view.column(quotient.denominator, window)]
            above = rows[view.column(quotient.numerator, window)]
            ratios[view.column(quotient.name, window)] = ibis.ifelse(
                below == 0, ibis.literal(quotient.empty, "float64"), above.cast("float64") / below.cast("float64")
            )
    return ratios


def _floor(value: ir.Value, step: int) -> ir.Value:
    """Return the integer quotient rounded down, also below zero.

    ibis divides through float64, which is exact for whole multiples below 2^53: so the remainder goes first.
    """
    remainder = ((value % step) + step) % step
    return ((value - remainder) // step).cast("int64")


_YES = ibis.literal(1, "int8")
_NO = ibis.literal(0, "int8")

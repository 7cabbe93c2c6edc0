"""The rows of a windowed view for a range of ticks, as one ibis expression over change points.

A source row enters a window at one tick and leaves it at another, so the state of a key changes only at these ticks; a
running sum over them is the value at any tick. Work grows with source rows times windows plus one heartbeat a live key and
day, never with keys times ticks. Engines sum integers only; each ratio is one float64 division at the end, so that every
engine gives the same bits.

A row at time u, known at k, is in the window of length W of tick T when `T - delay - W <= u < T - delay`, hence

    enters at   n = floor((u + delay) / every) + 1            (never before it is known, if knowledge is judged per tick)
    leaves at   n = floor((u + delay + W) / every) + 1
"""
# ibis gives a column its kind (integer, string) at run time only, so arithmetic on columns cannot be checked before.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir

from lockstep.clock import MICROSECOND
from lockstep.views.corrections import NEEDED_SINCE, corrections, last_beat, touched
from lockstep.views.declare import DataType
from lockstep.views.ticks import (
    EVENT_MICROS,
    KEY,
    TICK,
    TickQuery,
    TickRange,
    answered_table,
    arrival,
    floor,
    next_beat,
    phase_of,
    source_table,
    span,
)
from lockstep.views.windowed import Measure, WindowedView


@dataclass(frozen=True)
class WindowedTicks(TickQuery[WindowedView]):
    """How the rows of a windowed view are computed.

    A row is written when its value differs from what the view's table answers at that tick, and once a day for each
    live key (the heartbeat, spread over the day by a hash of the key).
    """

    @property
    def source_columns(self) -> dict[str, str]:
        """The columns that the measures add up."""
        return {m.column: m.column for m in self.view.measures if m.column}

    @property
    def source_types(self) -> dict[str, DataType]:
        """The columns that the measures add up: integers."""
        return dict.fromkeys(self.source_columns, "int64")

    @property
    def answer_columns(self) -> dict[str, str]:
        """The measures by window; the ratios follow from them."""
        return {c: c for c in _sums(self.view)}

    @property
    def feature_columns(self) -> dict[str, str]:
        """The measures and the ratios by window."""
        return {c: c for c in self.view.features}

    @property
    def answers_for(self) -> timedelta | None:
        """The ttl."""
        return self.view.ttl or None

    def source_bounds(self, ticks: TickRange) -> tuple[int, int]:
        """Return the half-open range of event times, in microseconds, of rows that can still matter to these ticks.

        It reaches back a ttl beyond the longest window: a key lives that long after its last row left.
        """
        every, delay = self.view.every // MICROSECOND, self.view.delay // MICROSECOND
        reach = delay + (max(self.view.windows) + _life_after_windows(self.view)) // MICROSECOND
        return ticks.first * every - reach - every, ticks.last * every - delay

    def rows(self, *, known_per_tick: bool) -> ir.Table:
        """Return the feature rows to write: key, tick number, and each measure and ratio by window."""
        view, measures = self.view, _sums(self.view)
        entries = _entries(view, known_per_tick=known_per_tick)
        states = _states(view, [_changes(view, entries), _heartbeats(view, entries)])
        by_tick = ibis.window(group_by=KEY, order_by=TICK)
        before = states.mutate(
            **{f"{c}_before": states[c].lag().over(by_tick) for c in measures},
            is_first=ibis.row_number().over(by_tick) == 0,
        )
        answered = answered_table(view, measures)
        known = answered.rename({f"{c}_answered": c for c in measures}).rename({"answered_key": KEY})
        joined = before.left_join(known, before[KEY] == known["answered_key"])
        changed = ibis.or_(
            *[
                ~joined[c].identical_to(
                    ibis.ifelse(joined["is_first"], joined[f"{c}_answered"], joined[f"{c}_before"])
                )
                for c in measures
            ]
        )
        written = joined.filter(ibis.or_(joined["heartbeat"] == 1, changed))
        return written.select(KEY, TICK, *measures, **_ratios(view, written))

    def corrected_rows(self, *, known_per_tick: bool) -> ir.Table:
        """Return the rows that correct the table's answers; where a key is not alive and the table answers, zeros."""
        view, (first, _) = self.view, span()
        entries = _entries(view, known_per_tick=known_per_tick)
        looked_at = _doing_nothing(view, touched(view, view.features), _NO)
        states = _states(view, [_changes(view, entries), _heartbeats(view, entries), looked_at])
        states = states.mutate(**_ratios(view, states))
        lives = entries.filter(entries["arrives"] <= first, entries["dies"] > first).select(KEY).distinct()
        lives = lives.select(
            life_key=lives[KEY], beat=last_beat(phase_of(lives[KEY], view.ticks_per_day), view.ticks_per_day)
        )
        joined = states.left_join(lives, [states[KEY] == lives["life_key"], states[TICK] == first])
        # A life that goes on has a row at its last heartbeat, or began since.
        needed = ibis.ifelse(joined["heartbeat"] == 1, joined[TICK], joined["beat"])
        states = joined.select(KEY, TICK, *view.features, **{NEEDED_SINCE: needed})
        empty = {c: ibis.literal(0, "int64") for c in _sums(view)} | _empty_ratios(view)
        return corrections(view, states, view.features, empty)


def _states(view: WindowedView, changes: Sequence[ir.Table]) -> ir.Table:
    """Return the sums of each key after each tick at which something happens, and whether that tick is a heartbeat."""
    measures = _sums(view)
    each = ibis.union(*changes, distinct=False)
    steps = each.group_by([KEY, TICK]).aggregate(
        heartbeat=each["heartbeat"].max(), **{c: _in_64_bits(each[c].sum()) for c in measures}
    )
    running = ibis.window(group_by=KEY, order_by=TICK, preceding=None, following=0)
    return steps.select(KEY, TICK, "heartbeat", **{c: _in_64_bits(steps[c].sum().over(running)) for c in measures})


def _in_64_bits(total: ir.Value) -> ir.Value:
    """Say to the engine what ibis takes for granted: DuckDB adds in 128 bits, and goes on with them at twice the cost."""
    return ops.Cast(total, to="int64").to_expr()


def _doing_nothing(view: WindowedView, ticks: ir.Table, heartbeat: ir.Value) -> ir.Table:
    """Return changes that add nothing, at these keys and ticks."""
    return ticks.select(KEY, TICK, heartbeat=heartbeat, **{c: ibis.literal(0, "int64") for c in _sums(view)})


def _sums(view: WindowedView) -> dict[str, DataType]:
    """Return the measures by window, with their type."""
    return {view.column(m.name, w): "int64" for m in view.measures for w in view.windows}


def _life_after_windows(view: WindowedView) -> timedelta:
    """Return how long a key lives after its last row left the longest window: its ttl, or just past the next tick.

    Where rows never expire, that tick is the one that has to say that the windows are empty.
    """
    return view.ttl or view.every + MICROSECOND


def _entries(view: WindowedView, *, known_per_tick: bool) -> ir.Table:
    """Return the source rows with the tick they arrive at, the tick of the range they enter at, and when their key dies.

    One whose key dies as the range begins is among them: a row that arrives just then goes on with that life.
    """
    first, last = span()
    source = source_table(view, {m.column: "int64" for m in view.measures if m.column})
    every = view.every // MICROSECOND
    shifted = source[EVENT_MICROS] + view.delay // MICROSECOND
    arrives = arrival(view, source, view.delay, known_per_tick=known_per_tick)
    amounts = {m.name: _amount(source, m) for m in view.measures}
    life = (max(view.windows) + _life_after_windows(view)) // MICROSECOND
    leaves = {
        f"leaves_{n}": floor(shifted + window // MICROSECOND, every) + 1 for n, window in enumerate(view.windows)
    }
    rows = source.select(
        KEY,
        arrives=arrives,
        enters=ibis.greatest(arrives, first),
        dies=-floor(-(shifted + life), every),
        **leaves,
        **amounts,
    )
    return rows.filter(rows["enters"] <= last, rows["arrives"] < rows["dies"], rows["dies"] >= first)


def _amount(source: ir.Table, measure: Measure) -> ir.Value:
    if measure.column is None:
        return ibis.literal(1, "int64")
    value = source[measure.column].cast("int64")
    return value * value if measure.squared else value


def _changes(view: WindowedView, entries: ir.Table) -> ir.Table:
    """Return one row where a source row enters, and one where it leaves each window."""
    _, last = span()
    entries = entries.filter(entries["enters"] < entries["dies"])

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
        left = entries.filter(entries["enters"] < entries[f"leaves_{n}"], entries[f"leaves_{n}"] <= last)
        leaving.append(left.select(KEY, tick=left[f"leaves_{n}"], heartbeat=_NO, **amounts(left, -1, {n})))
    return ibis.union(entering, *leaving, distinct=False)


def _heartbeats(view: WindowedView, entries: ir.Table) -> ir.Table:
    """Return one row a live key and day, adding nothing, at the tick of the day that the key's hash names.

    The first tick of a life is one too, so that from then on the table always answers with a row inside its ttl.
    """
    first, last = span()
    by_entry = ibis.window(group_by=KEY, order_by="arrives")
    so_far = ibis.window(group_by=KEY, order_by="arrives", preceding=None, following=0)
    # What arrived before the range only says until when its key lives: one row a key, not one an event.
    earliest = entries.mutate(arrives=ibis.greatest(entries["arrives"], first - 1))
    arrivals = earliest.group_by([KEY, "arrives"]).aggregate(dies=earliest["dies"].max())
    lives = arrivals.mutate(lives_until=arrivals["dies"].max().over(so_far))
    lives = lives.mutate(lived_until=lives["lives_until"].lag().over(by_entry).fill_null(lives["arrives"] - 1))
    spans = lives.select(
        KEY,
        "arrives",
        # Equal: a row arrives just as its key would die, and the life goes on.
        begins=lives["lived_until"] < lives["arrives"],
        start=ibis.greatest(lives["arrives"], first),
        end=ibis.least(lives["lives_until"], lives["arrives"].lead().over(by_entry).fill_null(last + 1), last + 1),
    )
    phases = spans.select(KEY).distinct()
    phases = phases.select(phase_key=phases[KEY], phase=phase_of(phases[KEY], view.ticks_per_day))
    phased = spans.left_join(phases, spans[KEY] == phases["phase_key"])
    beats = phased.select(KEY, "end", beat=next_beat(phased["start"], phased["phase"], view.ticks_per_day))
    beats = beats.filter(beats["beat"] < beats["end"])
    daily = beats.select(KEY, tick=ibis.range(beats["beat"], beats["end"], view.ticks_per_day).unnest())
    begun = spans.filter(spans["begins"], spans["arrives"] >= first)
    each = ibis.union(daily, begun.select(KEY, tick=begun["arrives"]), distinct=False)
    return _doing_nothing(view, each, _YES)


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


def _empty_ratios(view: WindowedView) -> dict[str, ir.Value]:
    """Return what each ratio is over windows without rows."""
    return {view.column(r.name, w): ibis.literal(r.empty, "float64") for r in view.ratios for w in view.windows}


_YES = ibis.literal(1, "int8")
_NO = ibis.literal(0, "int8")

"""The rows of a latest view for a range of ticks, as one ibis expression over the source rows that win.

A source row arrives at a tick and takes over if it is newer than every row that arrived before it; it holds until the next
one takes over. Work grows with source rows plus one heartbeat a key and `heartbeat` ticks, never with keys times ticks.
Only plain window functions are used, which every engine has.
"""
# ibis gives a column its kind (integer, string) at run time only, so arithmetic on columns cannot be checked before.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from dataclasses import dataclass
from datetime import timedelta

import ibis
import ibis.expr.types as ir

from lockstep.clock import MICROSECOND
from lockstep.views.corrections import NEEDED_SINCE, corrections, last_beat, touched
from lockstep.views.declare import DataType
from lockstep.views.latest import LatestView
from lockstep.views.ticks import (
    EVENT_MICROS,
    KEY,
    KNOWN_MICROS,
    TICK,
    TickQuery,
    TickRange,
    answered_table,
    arrival,
    next_beat,
    phase_of,
    source_table,
    span,
)


@dataclass(frozen=True)
class LatestTicks(TickQuery[LatestView]):
    """How the rows of a latest view are computed.

    A row is written at the first tick of a key, when its values differ from what the view's table answers at that tick, and
    once every `heartbeat` ticks, at the one that a hash of the key names.
    """

    @property
    def source_columns(self) -> dict[str, str]:
        """The attributes, by number: their own names may be those of the query's columns."""
        return {f"value_{n}": name for n, name in enumerate(self.view.columns)}

    @property
    def source_types(self) -> dict[str, DataType]:
        """The attributes."""
        return dict(self.view.columns)

    @property
    def answer_columns(self) -> dict[str, str]:
        """The attributes, by number."""
        return self.source_columns

    @property
    def feature_columns(self) -> dict[str, str]:
        """The attributes, by number."""
        return self.source_columns

    @property
    def answers_for(self) -> timedelta | None:
        """A heartbeat: no row is older, unless the ttl has been shortened since, and then it is time to repeat it."""
        return self.view.every * self.view.heartbeat if self.view.heartbeat else None

    def source_bounds(self, ticks: TickRange) -> tuple[None, int]:
        """Return the half-open range of event times, in microseconds: from the first on, for attributes hold for ever."""
        return None, ticks.last * (self.view.every // MICROSECOND)

    def rows(self, *, known_per_tick: bool) -> ir.Table:
        """Return the feature rows to write: key, tick number, and the attributes by number."""
        turns = _turns(self.view, known_per_tick=known_per_tick)
        values = list(_values(self.view))
        differs = ibis.or_(turns["is_new"], *[~turns[v].identical_to(turns[f"{v}_before"]) for v in values])
        period = self.view.heartbeat
        if period is None:
            changed = turns.filter(differs)
            return changed.select(KEY, TICK, *values)
        turns = turns.mutate(differs=differs, beat=next_beat(turns[TICK], phase_of(turns[KEY], period), period))
        changed = turns.filter(turns["differs"], turns["beat"] != turns[TICK])
        beating = turns.filter(turns["beat"] < turns["until"])
        beats = beating.select(KEY, ibis.range(beating["beat"], beating["until"], period).unnest().name(TICK), *values)
        return ibis.union(changed.select(KEY, TICK, *values), beats, distinct=False)

    def corrected_rows(self, *, known_per_tick: bool) -> ir.Table:
        """Return the rows that correct the table's answers; where no row of a key is seen and the table answers, nulls."""
        view, values, (first, last) = self.view, _values(self.view), span()
        period = view.heartbeat
        taking_over = _taking_over(view, known_per_tick=known_per_tick)
        by_tick = ibis.window(group_by=KEY, order_by=TICK)
        number = ibis.row_number().over(by_tick)
        turns = taking_over.mutate(until=taking_over[TICK].lead().over(by_tick).fill_null(last + 1), number=number)
        # A key that was seen before has a row at its last heartbeat, or was seen first since.
        beat = _ANY if period is None else last_beat(phase_of(turns[KEY], period), period)
        began = ibis.ifelse(
            turns[TICK] == first, beat, ibis.ifelse(turns["number"] == 0, turns[TICK], ibis.null("int64"))
        )
        nothing = {v: ibis.null(turns[v].type()) for v in values}
        looked_at = touched(view, values)
        ticks = [
            turns.select(KEY, TICK, *values, **{NEEDED_SINCE: began, "turn": _YES}),
            looked_at.select(KEY, TICK, **nothing, **{NEEDED_SINCE: ibis.null("int64"), "turn": _NO}),
        ]
        if period is not None:
            phased = turns.mutate(beat=next_beat(turns[TICK], phase_of(turns[KEY], period), period))
            phased = phased.filter(phased["beat"] < phased["until"])
            beats = phased.select(KEY, ibis.range(phased["beat"], phased["until"], period).unnest().name(TICK))
            ticks.append(beats.select(KEY, TICK, **nothing, **{NEEDED_SINCE: beats[TICK], "turn": _NO}))
        each = ibis.union(*ticks, distinct=False)
        steps = each.group_by([KEY, TICK]).aggregate(
            turn=each["turn"].max(),
            **{NEEDED_SINCE: each[NEEDED_SINCE].max()},
            **{v: each[v].max() for v in values},  # one of them at most is a turn, and the others are null
        )
        so_far = ibis.window(group_by=KEY, order_by=TICK, preceding=None, following=0)
        steps = steps.mutate(turns=steps["turn"].sum().over(so_far))
        held = ibis.window(group_by=[KEY, "turns"])
        states = steps.select(KEY, TICK, NEEDED_SINCE, **{v: steps[v].max().over(held) for v in values})
        return corrections(view, states, values, nothing)


_ANY = ibis.literal(-(2**62), "int64")
"""A tick before all others."""
_YES = ibis.literal(1, "int8")
_NO = ibis.literal(0, "int8")


def _values(view: LatestView) -> dict[str, DataType]:
    return {f"value_{n}": dtype for n, dtype in enumerate(view.columns.values())}


def _as_kept_online(value: ir.Value, dtype: DataType) -> ir.Value:
    """Return a value as Feast's online layout gives it back: the table, and so training, must not know more than serving."""
    match dtype:
        case "float32" | "float64":
            return ibis.ifelse(value.isnan(), ibis.null(dtype), value)
        case "timestamp":
            return value.truncate("s")
        case _:
            return value


def _turns(view: LatestView, *, known_per_tick: bool) -> ir.Table:
    """Return each row that is some tick's newest: from `tick` until the tick before `until`, and what was `before` it.

    `is_new` where nothing was: neither a row before it in the range, nor one that the view's table answers with.
    """
    _, last = span()
    values = _values(view)
    taking_over = _taking_over(view, known_per_tick=known_per_tick)
    by_tick = ibis.window(group_by=KEY, order_by=TICK)
    turns = taking_over.mutate(
        **{f"{v}_lag": taking_over[v].lag().over(by_tick) for v in values},
        is_first=ibis.row_number().over(by_tick) == 0,
        until=taking_over[TICK].lead().over(by_tick).fill_null(last + 1),
    )
    answered = answered_table(view, values)
    known = answered.rename({f"{v}_answered": v for v in values}).rename({"answered_key": KEY})
    joined = turns.left_join(known, turns[KEY] == known["answered_key"])
    first = joined["is_first"]
    return joined.select(
        KEY,
        TICK,
        "until",
        *values,
        is_new=ibis.and_(first, joined["answered_key"].isnull()),
        **{f"{v}_before": ibis.ifelse(first, joined[f"{v}_answered"], joined[f"{v}_lag"]) for v in values},
    )


def _taking_over(view: LatestView, *, known_per_tick: bool) -> ir.Table:
    """Return the rows that are newer than every row of their key that arrived before, with the tick they take over at."""
    first, last = span()
    values = _values(view)
    source = source_table(view, values)
    source = source.mutate(**{v: _as_kept_online(source[v], dtype) for v, dtype in values.items()})
    arrives = arrival(view, source, timedelta(0), known_per_tick=known_per_tick)
    seen = source.mutate(tick=ibis.greatest(arrives, first))
    seen = seen.filter(seen[TICK] <= last)
    ties = [seen[v].asc(nulls_first=True) for v in values]
    age = ibis.window(group_by=KEY, order_by=[seen[EVENT_MICROS], seen[KNOWN_MICROS], *ties])
    ranked = seen.select(KEY, TICK, *values, rank=ibis.row_number().over(age))
    # Of the rows that arrive at one tick the newest comes first, so that no other is newer than all before it.
    so_far = ibis.window(group_by=KEY, order_by=[TICK, ranked["rank"].desc()], preceding=None, following=0)
    ranked = ranked.mutate(greatest=ranked["rank"].max().over(so_far))
    return ranked.filter(ranked["rank"] == ranked["greatest"])

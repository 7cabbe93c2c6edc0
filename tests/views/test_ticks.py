"""The change-point query against an oracle that evaluates every key at every tick."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockstep.errors import UseCaseError
from lockstep.views import Entity, Source, WindowedView, count, hours, minutes, ratio, soft, total, windowed_view
from lockstep.views.naive import SourceRow, value_at
from lockstep.views.ticks import TickRange
from lockstep.views.windowed_ticks import WindowedTicks
from tests.views.tick_query import run_query

HOUR = 3_600_000_000
LAG = 300_000_000
WINDOWS = (2, 24)
DELAY, TTL = 3, 48
FOR_EVER = 0
STATE = ["nb_2h", "nb_1d", "fraud_2h", "fraud_1d"]


def view(ttl: int = TTL) -> WindowedView:
    return windowed_view(
        name="risk",
        entity=Entity("terminal", "terminal_id", "int64", "o"),
        source=Source("labels", "tx_datetime", "labelled_at", "o"),
        measures=[count("nb"), total("tx_fraud", "fraud")],
        ratios=[ratio("rate", "fraud", "nb")],
        windows=[hours(n) for n in WINDOWS],
        every=hours(1),
        delay=hours(DELAY),
        ttl=hours(ttl),
        compute_lag=minutes(5),
        freshness=soft(hours(3)),
        owner="o",
    )


@dataclass(frozen=True)
class Row:
    key: int
    event: int
    known: int
    fraud: int


Answer = dict[int, tuple[int, tuple[int, ...]]]


def phase(key: int) -> int:
    return int(hashlib.md5(str(key).encode()).hexdigest()[:4], 16) % 24  # noqa: S324


def value(rows: list[Row], key: int, tick: int, ticks: TickRange, ttl: int) -> dict[str, Any] | None:
    """The features of a key at a tick; None where it is not alive."""
    of_key = [SourceRow(r.event, r.known, {"tx_fraud": r.fraud}) for r in rows if r.key == key]
    return value_at(view(ttl), of_key, tick * HOUR, tick * HOUR + LAG if ticks.known_per_tick else None)


def naive(rows: list[Row], ticks: TickRange, answered: Answer | None = None, ttl: int = TTL) -> list[tuple[int, ...]]:
    """Evaluate every key at every tick."""
    written: list[tuple[int, ...]] = []
    for key in {r.key for r in rows}:
        last = (answered or {}).get(key)
        found = value(rows, key, ticks.first - 1, ticks, ttl)
        for tick in range(ticks.first, ticks.last + 1):
            now, lived, found = tick * HOUR, found is not None, value(rows, key, tick, ticks, ttl)
            if found is None:
                continue
            state = tuple(found[column] for column in STATE)
            answer = last[1] if last and (not ttl or now - last[0] <= ttl * HOUR) else None
            if state != answer or tick % 24 == phase(key) or not lived:
                written.append((key, tick, *state))
                last = (now, state)
    return sorted(written)


def computed(rows: list[Row], ticks: TickRange, answered: Answer | None = None, ttl: int = TTL) -> pa.Table:
    source = pa.table(
        {
            "key": pa.array([r.key for r in rows], pa.int64()),
            "event_us": pa.array([r.event for r in rows], pa.int64()),
            "known_us": pa.array([r.known for r in rows], pa.int64()),
            "tx_fraud": pa.array([r.fraud for r in rows], pa.int64()),
        }
    )
    first = ticks.first * HOUR
    answers = {k: v for k, (at, v) in (answered or {}).items() if not ttl or first - at <= ttl * HOUR}
    table = pa.table(
        {"key": pa.array(list(answers), pa.int64())}
        | {c: pa.array([v[n] for v in answers.values()], pa.int64()) for n, c in enumerate(STATE)}
    )
    found = run_query(WindowedTicks(view(ttl)), ticks, {"all_rows": source, "answered": table})
    return found.cast(
        pa.schema([(n, pa.float64() if n.startswith("rate") else pa.int64()) for n in found.column_names])
    )


def as_tuples(table: pa.Table) -> list[tuple[int, ...]]:
    return sorted(zip(*[table[c].to_pylist() for c in ("key", "tick", *STATE)], strict=True))


def in_ranges(rows: list[Row], bounds: Iterable[int], ttl: int, *, known_per_tick: bool) -> list[tuple[int, ...]]:
    """Compute one range after the other, each with what the ones before it left."""
    found: list[tuple[int, ...]] = []
    for after, last in pairwise(bounds):
        answers: Answer = {key: (tick * HOUR, tuple(state)) for key, tick, *state in sorted(found)}
        found += as_tuples(computed(rows, TickRange(after, last, known_per_tick), answers, ttl))
    return sorted(found)


def a_time(longest: int) -> st.SearchStrategy[int]:
    """Give whole hours as often as odd microseconds: ticks that fall exactly on an event are where windows go wrong."""
    return st.one_of(st.integers(0, longest).map(lambda h: h * HOUR), st.integers(0, longest * HOUR))


SOURCE_ROWS = st.lists(
    st.builds(
        lambda key, event, late, fraud: Row(key, event, event + late, fraud),
        st.integers(1, 3),
        a_time(120),
        st.sampled_from([0, LAG, 4 * HOUR, 10 * HOUR, 60 * HOUR]),
        st.integers(0, 1),
    ),
    max_size=25,
)


# A late row that arrives at the very tick at which its key would die, when all windows are empty; and one that comes too late.
DEATH = 9 + DELAY + max(WINDOWS) + TTL
REVIVED_IN_TIME = [Row(1, 9 * HOUR, 9 * HOUR, 0), Row(1, 24 * HOUR, DEATH * HOUR, 0)]
STILLBORN = [Row(1, 9 * HOUR, 9 * HOUR, 0), Row(1, 9 * HOUR - 1, DEATH * HOUR, 1)]
TTLS = st.sampled_from([TTL, TTL, FOR_EVER])


@settings(max_examples=60, deadline=None)
@given(SOURCE_ROWS, st.booleans(), TTLS)
@example(REVIVED_IN_TIME, True, TTL)
def test_change_points_give_what_every_key_at_every_tick_gives(
    rows: list[Row], known_per_tick: bool, ttl: int
) -> None:
    ticks = TickRange(0, 220, known_per_tick)
    assert as_tuples(computed(rows, ticks, ttl=ttl)) == naive(rows, ticks, ttl=ttl)


@settings(max_examples=40, deadline=None)
@given(SOURCE_ROWS, st.integers(1, 150), st.booleans(), TTLS)
@example(REVIVED_IN_TIME, DEATH - 1, True, TTL)
def test_a_range_computed_in_two_runs_is_the_same_as_in_one(
    rows: list[Row], cut: int, known_per_tick: bool, ttl: int
) -> None:
    whole = as_tuples(computed(rows, TickRange(0, 200, known_per_tick), ttl=ttl))
    assert in_ranges(rows, [0, cut, 200], ttl, known_per_tick=known_per_tick) == whole


@pytest.mark.parametrize(
    ("rows", "ttl", "near"),
    [
        pytest.param(REVIVED_IN_TIME, TTL, DEATH, id="revived as it dies"),
        pytest.param(STILLBORN, TTL, DEATH, id="dead on arrival"),
        pytest.param(REVIVED_IN_TIME[:1], FOR_EVER, 9 + DELAY + max(WINDOWS), id="never expires"),
    ],
)
def test_ticks_computed_one_at_a_time_give_the_rows_of_one_range(rows: list[Row], ttl: int, near: int) -> None:
    whole = naive(rows, TickRange(0, 120, known_per_tick=True), ttl=ttl)
    assert as_tuples(computed(rows, TickRange(0, 120, known_per_tick=True), ttl=ttl)) == whole
    bounds = [0, *range(near - 3, near + 3), 120]
    assert in_ranges(rows, bounds, ttl, known_per_tick=True) == whole
    for cut in bounds[1:-1]:
        assert in_ranges(rows, [0, cut, 120], ttl, known_per_tick=True) == whole, cut


def test_where_rows_never_expire_the_last_one_says_that_the_windows_are_empty() -> None:
    rows = [Row(1, 9 * HOUR, 9 * HOUR, 1)]
    left = 9 + DELAY + max(WINDOWS) + 1
    found = in_ranges(rows, range(left - 3, left + 3), FOR_EVER, known_per_tick=False)
    assert found[-1] == (1, left, 0, 0, 0, 0)


def test_a_row_exactly_on_the_tick_is_outside_and_one_exactly_a_window_old_is_inside() -> None:
    rows = [Row(1, 10 * HOUR, 10 * HOUR, 1)]
    found = {tick: state for _, tick, *state in as_tuples(computed(rows, TickRange(0, 40, known_per_tick=False)))}
    assert min(found) == 10 + DELAY + 1, "the tick at exactly event + delay does not see the row"
    assert found[14] == [1, 1, 1, 1]
    assert found[16] == [0, 1, 0, 1], "it leaves the 2 h window after the tick at event + delay + 2 h"


def test_a_row_known_only_after_it_left_its_window_never_enters_it() -> None:
    rows = [Row(1, 10 * HOUR, 10 * HOUR + 10 * HOUR, 1)]
    states = [state for _, _, *state in as_tuples(computed(rows, TickRange(0, 60, known_per_tick=True)))]
    assert [0, 1, 0, 1] in states
    assert all(state[0] == 0 for state in states)


def test_a_quiet_key_gets_one_row_a_day_until_it_is_dead() -> None:
    rows = [Row(7, 1 * HOUR, 1 * HOUR, 0)]
    found = as_tuples(computed(rows, TickRange(0, 500, known_per_tick=False)))
    beats = [tick for _, tick, *_ in found if tick % 24 == phase(7)]
    dead = 1 + DELAY + max(WINDOWS) + TTL
    assert beats == [tick for tick in range(5, dead) if tick % 24 == phase(7)]
    assert max(tick for _, tick, *_ in found) < dead


def test_a_ratio_is_one_division_and_empty_windows_have_the_declared_value() -> None:
    rows = [Row(1, 0, 0, 1), Row(1, 1, 1, 0), Row(1, 2, 2, 0)]
    table = computed(rows, TickRange(0, 60, known_per_tick=False))
    found = dict(zip(table["tick"].to_pylist(), table["rate_1d"].to_pylist(), strict=True))
    assert found[4] == pytest.approx(1 / 3, abs=0)
    assert found[1 + DELAY + 24] == 0.0


def test_work_does_not_grow_with_ticks() -> None:
    """Nothing but a heartbeat a day comes of a month without events."""
    found = computed([Row(k, 0, 0, 0) for k in range(200)], TickRange(0, 24 * 30, known_per_tick=False))
    alive_days = (DELAY + max(WINDOWS) + TTL) // 24 + 1
    assert found.num_rows <= 200 * (alive_days + 4)


def test_lists_are_kept_as_tuples_and_windows_in_order() -> None:
    turned = replace(view(), windows=[hours(n) for n in reversed(WINDOWS)], measures=[count("nb")], ratios=[])
    assert turned.windows == tuple(hours(n) for n in WINDOWS)
    assert (turned.measures, turned.ratios) == ((count("nb"),), ())
    assert replace(turned, measures=(count("nb"),)) == turned


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"windows": []}, "view risk needs at least one window and one measure"),
        ({"windows": [minutes(90)]}, "window 1:30:00 is not a whole number of ticks"),
        ({"measures": [count("nb")]}, "ratio rate divides 'fraud', which is no measure of it"),
        ({"ttl": hours(24)}, "is shorter than"),
    ],
)
def test_a_contradiction_is_refused_in_a_declaration_and_in_a_changed_copy(
    changed: dict[str, Any], refusal: str
) -> None:
    with pytest.raises(UseCaseError, match=refusal):
        replace(view(), **changed)
    declared = {f.name: getattr(view(), f.name) for f in fields(view())}
    with pytest.raises(UseCaseError, match=refusal):
        windowed_view(**(declared | changed))


def test_features_are_named_after_measure_and_window_in_order() -> None:
    assert list(view().features) == [*STATE, "rate_2h", "rate_1d"]

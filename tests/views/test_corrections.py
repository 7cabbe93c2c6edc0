"""The correcting queries against every key at every tick, over tables that hold anything at all."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockstep.views.declare import ARROW_TYPES, EVENT_TIMESTAMP, StoredView
from lockstep.views.latest_ticks import LatestTicks
from lockstep.views.ticks import TickQuery, TickRange
from lockstep.views.windowed_ticks import WindowedTicks
from tests.views import test_latest_ticks as latest
from tests.views import test_ticks as windowed
from tests.views.tick_query import run_query

Values = tuple[Any, ...]
Table = Mapping[tuple[int, int], Values]
"""What a table has: the newest values a key and tick."""


def corrected(
    query: TickQuery[StoredView], source: Mapping[str, pa.Array], ticks: TickRange, table: Table, ttl: int
) -> dict[tuple[int, int], Values]:
    """Run the query over a source and a table; `ttl` counts ticks, 0 is for ever."""
    view = query.view
    types = [ARROW_TYPES[view.features[column]] for column in query.feature_columns.values()]

    def relation(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
        names = ["key", "tick", *query.feature_columns]
        kinds = [pa.int64(), pa.int64(), *types]
        return pa.table(
            {n: pa.array([r[i] for r in rows], t) for i, (n, t) in enumerate(zip(names, kinds, strict=True))}
        )

    within = [(key, tick, *values) for (key, tick), values in table.items() if ticks.first <= tick <= ticks.last]
    newest = {
        key: tick for key, tick in sorted(table) if tick <= ticks.first and (not ttl or ticks.first - tick <= ttl)
    }
    relations = {
        "all_rows": pa.table(source),
        "written": relation(within),
        "answered": relation([(key, tick, *table[key, tick]) for key, tick in newest.items()]),
    }
    found = run_query(query, ticks, relations, correct=True)
    rows = list(zip(*[column.to_pylist() for column in found.columns], strict=True))
    assert len({row[:2] for row in rows}) == len(rows)
    return {(key, tick): tuple(values) for key, tick, *values in rows}


def answer(table: Table, key: int, tick: int, ttl: int) -> Values | None:
    at = max((t for k, t in table if k == key and t <= tick), default=None)
    return None if at is None or (ttl and tick - at > ttl) else table[key, at]


def with_rates(state: Sequence[int]) -> Values:
    """Add the ratios to the counts and frauds of both windows."""
    counts, frauds = state[:2], state[2:]
    return *state, *(f / n if n else 0.0 for n, f in zip(counts, frauds, strict=True))


def windowed_source(rows: list[windowed.Row]) -> dict[str, pa.Array]:
    return {
        "key": pa.array([r.key for r in rows], pa.int64()),
        "event_us": pa.array([r.event for r in rows], pa.int64()),
        "known_us": pa.array([r.known for r in rows], pa.int64()),
        "tx_fraud": pa.array([r.fraud for r in rows], pa.int64()),
    }


def correct_windowed(
    rows: list[windowed.Row], ticks: TickRange, table: Table, ttl: int
) -> dict[tuple[int, int], Values]:
    return corrected(WindowedTicks(windowed.view(ttl)), windowed_source(rows), ticks, table, ttl)


# Two windows' counts and frauds, right ones and wrong ones; a rate may be wrong where its parts are right.
SOME_STATE = st.tuples(
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(0, 1),
    st.integers(0, 1),
    st.sampled_from([0.0, 0.5]),
    st.just(0.0),
)
TABLES = st.dictionaries(st.tuples(st.integers(1, 4), st.integers(0, 220)), SOME_STATE, max_size=25)
RANGES = st.tuples(st.integers(0, 200), st.integers(1, 120)).map(lambda r: (r[0], r[0] + r[1]))


@settings(max_examples=30, deadline=None)
@given(windowed.SOURCE_ROWS, TABLES, RANGES, st.booleans(), windowed.TTLS)
@example(windowed.REVIVED_IN_TIME, {}, (windowed.DEATH - 2, windowed.DEATH + 60), True, windowed.TTL)
@example([], {(1, 5): (1, 1, 0, 0, 0.0, 0.0)}, (7, 9), False, windowed.FOR_EVER)
def test_whatever_a_windowed_views_table_holds_it_answers_right_at_every_corrected_tick(
    rows: list[windowed.Row], table: Table, bounds: tuple[int, int], known_per_tick: bool, ttl: int
) -> None:
    ticks = TickRange(*bounds, known_per_tick)
    after = {**table, **correct_windowed(rows, ticks, table, ttl)}
    for key in {r.key for r in rows} | {key for key, _ in table}:
        for tick in range(ticks.first, ticks.last + 1):
            found = answer(after, key, tick, ttl)
            due = windowed.value(rows, key, tick, ticks, ttl)
            if due is not None:
                assert found == tuple(due.values()), (key, tick)
            else:
                assert found in (None, (0,) * 4 + (0.0,) * 2), (key, tick)


@settings(max_examples=20, deadline=None)
@given(windowed.SOURCE_ROWS, st.lists(st.integers(1, 199), max_size=3, unique=True), RANGES, windowed.TTLS)
def test_where_nothing_was_wrong_a_windowed_view_is_not_corrected(
    rows: list[windowed.Row], cuts: list[int], bounds: tuple[int, int], ttl: int
) -> None:
    whole = windowed.in_ranges(rows, [0, *sorted(cuts), 220], ttl, known_per_tick=True)
    table = {(key, tick): with_rates(state) for key, tick, *state in whole}
    ticks = TickRange(bounds[0], min(bounds[1], 220), known_per_tick=True)
    assert correct_windowed(rows, ticks, table, ttl) == {}


def correct_latest(
    rows: list[latest.Row], ticks: TickRange, table: Table, declared: latest.LatestView
) -> dict[tuple[int, int], Values]:
    values = {f"value_{n}": ARROW_TYPES[dtype] for n, dtype in enumerate(latest.COLUMNS.values())}
    source = {
        "key": pa.array([r.key for r in rows], pa.int64()),
        "event_us": pa.array([r.event for r in rows], pa.int64()),
        "known_us": pa.array([r.known for r in rows], pa.int64()),
    } | {name: pa.array([r.told[n] for r in rows], dtype) for n, (name, dtype) in enumerate(values.items())}
    return corrected(LatestTicks(declared), source, ticks, table, latest.TTL if declared.ttl else 0)


SOME_TOLD = st.tuples(
    st.sampled_from(["Bern", "Ulm", None]), st.sampled_from([0, 1, None]), st.sampled_from([None, 0.5]), st.none()
)
LATEST_TABLES = st.dictionaries(st.tuples(st.integers(1, 4), st.integers(0, 32)), SOME_TOLD, max_size=20)
LATEST_RANGES = st.tuples(st.integers(0, 25), st.integers(1, 12)).map(lambda r: (r[0], r[0] + r[1]))


@settings(max_examples=30, deadline=None)
@given(latest.VIEWS, latest.SOURCE_ROWS, LATEST_TABLES, LATEST_RANGES, st.booleans())
def test_whatever_a_latest_views_table_holds_it_answers_right_at_every_corrected_tick(
    declared: latest.LatestView, rows: list[latest.Row], table: Table, bounds: tuple[int, int], known_per_tick: bool
) -> None:
    ticks = TickRange(*bounds, known_per_tick)
    ttl = latest.TTL if declared.ttl else 0
    after = {**table, **correct_latest(rows, ticks, table, declared)}
    for key in {r.key for r in rows} | {key for key, _ in table}:
        for tick in range(ticks.first, ticks.last + 1):
            due = latest.value(declared, rows, key, tick, known_per_tick=known_per_tick)
            assert answer(after, key, tick, ttl) in ((None, (None,) * 4) if due is None else (due,)), (key, tick)


@settings(max_examples=20, deadline=None)
@given(latest.VIEWS, latest.SOURCE_ROWS, st.integers(1, 31), LATEST_RANGES)
def test_where_nothing_was_wrong_a_latest_view_is_not_corrected(
    declared: latest.LatestView, rows: list[latest.Row], cut: int, bounds: tuple[int, int]
) -> None:
    table: dict[tuple[int, int], Values] = {}
    for after, last in pairwise([0, cut, 40]):
        answers = {key: (tick, values) for (key, tick), values in sorted(table.items())}
        for key, tick, *values in latest.computed(
            declared, rows, TickRange(after, last, known_per_tick=True), answers
        ):
            table[key, tick] = tuple(values)
    assert correct_latest(rows, TickRange(*bounds, known_per_tick=True), table, declared) == {}


def test_work_does_not_grow_with_ticks() -> None:
    rows = [windowed.Row(k, 0, 0, 0) for k in range(200)]
    found = correct_windowed(rows, TickRange(0, 24 * 30, known_per_tick=False), {}, windowed.TTL)
    alive_days = (windowed.DELAY + max(windowed.WINDOWS) + windowed.TTL) // 24 + 1
    assert 0 < len(found) <= 200 * (alive_days + 4)


@pytest.mark.parametrize("query", [WindowedTicks(windowed.view()), LatestTicks(latest.view())])
def test_correcting_compares_every_feature(query: TickQuery[StoredView]) -> None:
    assert list(query.feature_columns.values()) == [*query.view.features]
    assert EVENT_TIMESTAMP not in query.feature_columns

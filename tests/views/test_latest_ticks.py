"""The query of a latest view against an oracle that looks for every key's newest row at every tick."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import nan
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.clock import from_micros
from lockstep.views import Entity, LatestView, Source, days, latest_view, minutes, soft
from lockstep.views.declare import ARROW_TYPES, DataType
from lockstep.views.latest_ticks import LatestTicks
from lockstep.views.naive import SourceRow, value_at
from lockstep.views.ticks import TickRange
from tests.views.tick_query import run_query

DAY = 86_400_000_000
SECOND = 1_000_000
LAG = 300_000_000
HEARTBEAT = 3
TTL = 2 * HEARTBEAT
COLUMNS: Mapping[str, DataType] = {"home": "string", "segment": "int64", "score": "float64", "since": "timestamp"}
NEITHER = (None, None)
"""No score, and no time since when."""


def view(ttl: timedelta = timedelta(days=TTL)) -> LatestView:
    return latest_view(
        name="profile",
        entity=Entity("customer", "customer_id", "int64", "o"),
        source=Source("customers", "changed_at", "told_at", "o"),
        columns=COLUMNS,
        every=days(1),
        ttl=ttl,
        compute_lag=minutes(5),
        freshness=soft(days(2)),
        owner="o",
    )


FOR_EVER = view(ttl=timedelta(0))


@dataclass(frozen=True)
class Row:
    key: int
    event: int
    known: int
    home: str | None
    segment: int | None = 0
    score: float | None = None
    since_us: int | None = None

    @property
    def told(self) -> tuple[Any, ...]:
        return self.home, self.segment, self.score, self.since_us


Written = tuple[int, int, str | None, int | None, float | None, datetime | None]
Values = tuple[Any, ...]
Answer = Mapping[int, tuple[int, Values]]


def phase(key: int) -> int:
    return int(hashlib.md5(str(key).encode()).hexdigest()[:4], 16) % HEARTBEAT  # noqa: S324


def value(declared: LatestView, rows: list[Row], key: int, tick: int, *, known_per_tick: bool) -> Values | None:
    """What the newest row of a key says at a tick; None where it has none yet."""

    def told(row: Row) -> tuple[Any, ...]:
        return *row.told[:-1], None if row.since_us is None else from_micros(row.since_us)

    of_key = [SourceRow(r.event, r.known, dict(zip(COLUMNS, told(r), strict=True))) for r in rows if r.key == key]
    found = value_at(declared, of_key, tick * DAY, tick * DAY + LAG if known_per_tick else None)
    return None if found is None else tuple(found.values())


def naive(declared: LatestView, rows: list[Row], ticks: TickRange, answered: Answer | None = None) -> list[Written]:
    """Look for every key's newest row at every tick."""
    written: list[Written] = []
    for key in {r.key for r in rows}:
        last = (answered or {}).get(key)
        for tick in range(ticks.first, ticks.last + 1):
            values = value(declared, rows, key, tick, known_per_tick=ticks.known_per_tick)
            if values is None:
                continue
            answer = last if last and (not declared.ttl or tick - last[0] <= TTL) else None
            beats = bool(declared.ttl) and tick % HEARTBEAT == phase(key)
            if answer is None or answer[1] != values or beats:
                written.append((key, tick, *values))
                last = (tick, values)
    return sorted(written, key=lambda r: r[:2])


def computed(declared: LatestView, rows: list[Row], ticks: TickRange, answered: Answer | None = None) -> list[Written]:
    query = LatestTicks(declared)
    assert query.source_bounds(ticks)[0] is None
    oldest = None if query.answers_for is None else ticks.first - query.answers_for // days(1)
    answers = {k: v for k, (at, v) in (answered or {}).items() if oldest is None or at >= oldest}
    values = {f"value_{n}": ARROW_TYPES[dtype] for n, dtype in enumerate(COLUMNS.values())}
    source = {
        "key": pa.array([r.key for r in rows], pa.int64()),
        "event_us": pa.array([r.event for r in rows], pa.int64()),
        "known_us": pa.array([r.known for r in rows], pa.int64()),
    } | {name: pa.array([r.told[n] for r in rows], dtype) for n, (name, dtype) in enumerate(values.items())}
    known = {"key": pa.array(list(answers), pa.int64())} | {
        name: pa.array([v[n] for v in answers.values()], dtype) for n, (name, dtype) in enumerate(values.items())
    }
    found = run_query(query, ticks, {"all_rows": pa.table(source), "answered": pa.table(known)})
    assert found.column_names == ["key", "tick", *values]
    return sorted(zip(*[column.to_pylist() for column in found.columns], strict=True), key=lambda r: r[:2])


TIMES = st.one_of(st.integers(0, 20).map(lambda d: d * DAY), st.integers(0, 20 * DAY), st.sampled_from([DAY, DAY + 1]))
SOURCE_ROWS = st.lists(
    st.builds(
        lambda key, event, late, *told: Row(key, event, event + late, *told),
        st.integers(1, 3),
        TIMES,
        st.sampled_from([0, 1, LAG, LAG + 1, DAY, 5 * DAY]),
        st.sampled_from(["", "Bern", "Ulm", None]),
        st.sampled_from([0, 0, 1, None]),
        st.sampled_from([None, None, nan, 0.5]),
        st.sampled_from([None, 0, 1, SECOND - 1, -1, SECOND]),
    ),
    max_size=20,
)
VIEWS = st.sampled_from([view(), FOR_EVER])


@settings(max_examples=100)
@given(VIEWS, SOURCE_ROWS, st.booleans())
def test_the_query_gives_what_the_newest_row_at_every_tick_gives(
    declared: LatestView, rows: list[Row], known_per_tick: bool
) -> None:
    ticks = TickRange(0, 32, known_per_tick)
    assert computed(declared, rows, ticks) == naive(declared, rows, ticks)


@settings(max_examples=60)
@given(VIEWS, SOURCE_ROWS, st.integers(1, 31), st.booleans())
def test_a_range_computed_in_two_runs_is_the_same_as_in_one(
    declared: LatestView, rows: list[Row], cut: int, known_per_tick: bool
) -> None:
    whole = computed(declared, rows, TickRange(0, 32, known_per_tick))
    first = computed(declared, rows, TickRange(0, cut, known_per_tick))
    answers = {key: (tick, tuple(values)) for key, tick, *values in first}
    second = computed(declared, rows, TickRange(cut, 32, known_per_tick), answers)
    assert sorted(first + second, key=lambda r: r[:2]) == whole


@settings(max_examples=60)
@given(VIEWS, SOURCE_ROWS, SOURCE_ROWS, st.integers(1, 31))
def test_rows_that_come_between_two_live_runs_enter_the_second(
    declared: LatestView, early: list[Row], late: list[Row], cut: int
) -> None:
    first = computed(declared, early, TickRange(0, cut, known_per_tick=False))
    answers = {key: (tick, tuple(values)) for key, tick, *values in first}
    ticks = TickRange(cut, 32, known_per_tick=False)
    assert computed(declared, early + late, ticks, answers) == naive(declared, early + late, ticks, answers)


def test_a_row_exactly_at_a_tick_is_seen_by_the_next_one() -> None:
    rows = [Row(1, 5 * DAY, 5 * DAY, "Bern")]
    assert computed(FOR_EVER, rows, TickRange(0, 9, known_per_tick=False)) == [(1, 6, "Bern", 0, *NEITHER)]


@pytest.mark.parametrize(("late", "tick"), [(LAG, 6), (LAG + 1, 7)])
def test_in_bootstrap_a_row_is_seen_once_it_is_known_a_compute_lag_after_the_tick(late: int, tick: int) -> None:
    rows = [Row(1, 5 * DAY + 7, 6 * DAY + late, "Bern")]
    assert computed(FOR_EVER, rows, TickRange(0, 9, known_per_tick=True)) == [(1, tick, "Bern", 0, *NEITHER)]


def test_an_older_row_that_arrives_late_replaces_nothing() -> None:
    rows = [Row(1, 5 * DAY, 5 * DAY, "Bern"), Row(1, 3 * DAY, 8 * DAY, "Ulm")]
    assert computed(FOR_EVER, rows, TickRange(0, 20, known_per_tick=True)) == [(1, 6, "Bern", 0, *NEITHER)]


def test_of_rows_of_one_time_the_one_known_last_counts_then_the_greater_values_and_null_is_least() -> None:
    told_twice = [Row(1, 5 * DAY, 6 * DAY, "Ulm"), Row(1, 5 * DAY, 7 * DAY, "Bern")]
    told_at_once = [Row(2, 5 * DAY, 6 * DAY, h, s) for h, s in ((None, 9), ("Bern", 1), ("Bern", None))]
    rows = told_twice + told_at_once
    ticks = TickRange(0, 20, known_per_tick=False)
    assert computed(FOR_EVER, rows, ticks) == computed(FOR_EVER, rows[::-1], ticks)
    assert computed(FOR_EVER, rows, ticks) == [(1, 6, "Bern", 0, *NEITHER), (2, 6, "Bern", 1, *NEITHER)]


def test_null_is_a_value_that_is_written_and_that_replaces_one() -> None:
    rows = [Row(1, DAY, DAY, "Bern"), Row(1, 4 * DAY, 4 * DAY, None), Row(2, DAY, DAY, None, None)]
    found = computed(FOR_EVER, rows, TickRange(0, 20, known_per_tick=False))
    assert found == [(1, 2, "Bern", 0, *NEITHER), (1, 5, None, 0, *NEITHER), (2, 2, None, None, *NEITHER)]


def test_a_nan_is_written_as_null_and_is_no_change_of_one() -> None:
    rows = [Row(1, day * DAY, day * DAY, "Bern", 0, score) for day, score in enumerate((nan, None, nan, 0.5, nan), 1)]
    whole = computed(FOR_EVER, rows, TickRange(0, 9, known_per_tick=False))
    assert whole == [(1, tick, "Bern", 0, score, None) for tick, score in ((2, None), (5, 0.5), (6, None))]
    quiet = computed(FOR_EVER, rows, TickRange(6, 9, known_per_tick=False), {1: (6, whole[-1][2:])})
    assert quiet == []


def test_a_timestamp_is_written_in_whole_seconds_and_a_part_of_one_is_no_change() -> None:
    times = (5 * SECOND + 1, 5 * SECOND + 999_999, 6 * SECOND, -1)
    rows = [Row(1, day * DAY, day * DAY, "Bern", since_us=since) for day, since in enumerate(times, 1)]
    whole = computed(FOR_EVER, rows, TickRange(0, 9, known_per_tick=False))
    seconds = ((2, 5), (4, 6), (5, -1))
    assert whole == [(1, tick, "Bern", 0, None, from_micros(second * SECOND)) for tick, second in seconds]
    quiet = computed(FOR_EVER, rows, TickRange(5, 9, known_per_tick=False), {1: (5, whole[-1][2:])})
    assert quiet == []


def test_a_row_that_says_the_same_again_is_not_written() -> None:
    rows = [Row(1, day * DAY, day * DAY, "Bern") for day in range(1, 9)]
    assert computed(FOR_EVER, rows, TickRange(0, 20, known_per_tick=False)) == [(1, 2, "Bern", 0, *NEITHER)]


def test_a_key_is_repeated_every_half_ttl_for_ever() -> None:
    found = computed(view(), [Row(7, DAY, DAY, "Bern")], TickRange(0, 200, known_per_tick=False))
    beats = [tick for tick in range(2, 201) if tick % HEARTBEAT == phase(7)]
    assert found == [(7, tick, "Bern", 0, *NEITHER) for tick in sorted({2, *beats})]


def test_after_the_ttl_was_shortened_a_row_that_would_expire_is_repeated_at_once() -> None:
    rows = [Row(7, DAY, DAY, "Bern")]
    tick = next(n for n in range(50, 60) if n % HEARTBEAT != phase(7))
    ticks = TickRange(tick - 1, tick, known_per_tick=False)
    assert computed(view(), rows, ticks, {7: (tick - HEARTBEAT, ("Bern", 0, *NEITHER))}) == []
    assert computed(view(), rows, ticks, {7: (tick - HEARTBEAT - 1, ("Bern", 0, *NEITHER))}) == [
        (7, tick, "Bern", 0, *NEITHER)
    ]


def test_work_does_not_grow_with_ticks() -> None:
    yearly = view(ttl=days(365))
    found = computed(yearly, [Row(k, 0, 0, "Bern") for k in range(200)], TickRange(0, 730, known_per_tick=False))
    assert len(found) <= 200 * (1 + 730 // 182 + 1)


def test_the_text_depends_on_the_view_and_the_mode_alone() -> None:
    query = LatestTicks(view())
    assert query.sql("duckdb", known_per_tick=True) is LatestTicks(view()).sql("duckdb", known_per_tick=True)
    assert query.sql("duckdb", known_per_tick=True) != query.sql("duckdb", known_per_tick=False)
    assert query.sql("duckdb", known_per_tick=True) != LatestTicks(FOR_EVER).sql("duckdb", known_per_tick=True)

"""The exact clock: any time, any order of rows, ties and late knowledge, against plain loops, pandas, and ticks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lockstep.clock import EPOCH, MICROSECOND, from_micros, to_micros
from lockstep.errors import BadInput, NotYetSupported, SchemaDrift, UseCaseError
from lockstep.views import (
    Entity,
    LatestView,
    Source,
    StoredView,
    WindowedView,
    count,
    days,
    hours,
    ratio,
    soft,
    total,
    total_of_squares,
)
from lockstep.views.declare import ARROW_TYPES, DataType
from lockstep.views.exact import AT_ONCE, DECLARED, FUTURE, WHOLE_HISTORY, WITH_ITSELF, Reach, value_at_times
from lockstep.views.exact_rows import count_below
from lockstep.views.naive import SourceRow, nothing_of, value_at

START = datetime(2018, 6, 1, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30) // MICROSECOND
TIME = ARROW_TYPES["timestamp"]
SPEND = WindowedView(
    name="spend",
    entity=Entity("card", "card", "int64", "o"),
    source=Source("payments", "at", "known_at", "o"),
    measures=[count("nb"), total("cents"), total_of_squares("cents")],
    ratios=[ratio("mean", "cents", "nb", empty=-1.0), ratio("rate", "nb", "cents", empty=7.0)],
    windows=[hours(1), hours(3), hours(8)],
    every=hours(1),
    ttl=days(3),
    freshness=soft(hours(3)),
    owner="o",
)
DELAYED = replace(SPEND, delay=hours(2))
TOTALS = replace(SPEND, measures=[count("nb"), total("cents")])
BY_NAME = replace(SPEND, entity=Entity("card", "card", "string", "o"))
PROFILE = LatestView(
    name="profile",
    entity=SPEND.entity,
    source=SPEND.source,
    columns={"x": "float64", "size": "int64", "vip": "bool", "town": "string", "since": "timestamp"},
    every=hours(1),
    ttl=days(3),
    freshness=soft(days(1)),
    owner="o",
)


def us(number: float) -> int:
    """Return a time that lies a number of half hours after the start."""
    return to_micros(START) + round(number * HALF_HOUR)


def payments(*rows: tuple[Any, float | None, float | None, int | None], key: pa.DataType | None = None) -> pa.Table:
    """Return rows of key, time, time known (half hours after the start) and cents."""
    cards, at, known, cents = zip(*rows, strict=True) if rows else ([], [], [], [])
    times = [pa.array([None if n is None else us(n) for n in column], pa.int64()).cast(TIME) for column in (at, known)]
    columns = {"card": pa.array(cards, key or pa.int64()), "at": times[0], "known_at": times[1]}
    return pa.table({**columns, "cents": pa.array(cents, pa.int64())})


def asked(*times: float) -> NDArray[np.int64]:
    return np.array([us(time) for time in times], np.int64)


def counts(source: pa.Table, *times: float, view: WindowedView = SPEND, **given_: Any) -> list[int]:
    """Return the count of card 1's rows in the three-hour window at each time."""
    return value_at_times(view, source, [1] * len(times), asked(*times), **given_)["nb_3h"].tolist()


def counts_for(view: WindowedView, reach: Reach, window: timedelta, row: Any, place: int, t: int, before: int) -> bool:
    """Say whether a row of the key counts: the definition, slow and plain."""
    u, k = to_micros(row["at"]), to_micros(row["known_at"])
    delay = (view.delay if reach.delay is None else reach.delay) // MICROSECOND
    length = window // MICROSECOND
    if reach.rows == "all":
        return True
    if reach.rows == "future":
        return t <= u < t + length
    enters = max(u + delay, k) if reach.heed_known else u + delay
    entered = enters <= t if delay or reach.own else (enters, place) < (t, before)
    return entered and t < u + delay + length


def oracle(view: WindowedView, source: pa.Table, key: Any, t: int, before: int, reach: Reach) -> dict[str, Any]:
    rows = [
        (place, row)
        for place, row in enumerate(source.to_pylist())
        if key is not None and row["card"] == key and None not in (row["at"], row["known_at"])
    ]
    rows = [(place, row) for place, row in rows if row["at"] <= row["known_at"]]
    found: dict[str, Any] = {}
    for window in view.windows:
        cents = [row["cents"] or 0 for n, row in rows if counts_for(view, reach, window, row, n, t, before)]
        sums = {"nb": len(cents), "cents": sum(cents), "cents_squared": sum(c * c for c in cents)}
        sums["mean"] = sums["cents"] / sums["nb"] if cents else -1.0
        sums["rate"] = sums["nb"] / sums["cents"] if sums["cents"] else 7.0
        found |= {view.column(name, window): value for name, value in sums.items()}
    return {name: found[name] for name in view.features}


CARDS = st.sampled_from([1, 1, 1, 2, 3, None])
TIMES = st.integers(0, 24)
Payment = tuple[int | None, int | None, int | None, int | None]


@st.composite
def payment(draw: st.DrawFn) -> Payment:
    """Draw a row, of which some have a null, and some are known before they happened."""
    at = draw(st.one_of(TIMES, st.none()))
    late = draw(st.sampled_from([0, 0, 1, 2, 3, 30, -1, None]))
    known = None if at is None or late is None else at + late
    return draw(CARDS), at, known, draw(st.one_of(st.integers(-9, 9), st.none()))


ROWS = st.lists(payment(), max_size=25)
QUESTIONS = st.lists(st.tuples(st.sampled_from([1, 1, 2, 3, 99, None]), TIMES, st.integers(-1, 26)), max_size=12)
REACHES = st.one_of(
    st.sampled_from([DECLARED, AT_ONCE, WITH_ITSELF, FUTURE, WHOLE_HISTORY]),
    st.builds(
        Reach,
        delay=st.sampled_from([None, hours(0), hours(1), days(400)]),
        heed_known=st.booleans(),
        own=st.booleans(),
    ),
)


@given(ROWS, QUESTIONS, st.sampled_from([SPEND, DELAYED]), REACHES, st.booleans())
def test_values_are_those_of_the_definition(
    rows: list[Payment], questions: Any, view: WindowedView, reach: Reach, ties: bool
) -> None:
    source = payments(*rows)
    keys, times, before = zip(*questions, strict=True) if questions else ((), (), ())
    places = np.array(before, np.int64) if ties else None
    found = value_at_times(view, source, list(keys), asked(*times), before=places, reach=reach)
    assert list(found) == list(view.features)
    right = [
        oracle(view, source, key, us(time), place if ties else -1, reach)
        for key, time, place in zip(keys, times, before, strict=True)
    ]
    assert {name: values.tolist() for name, values in found.items()} == {
        name: [row[name] for row in right] for name in view.features
    }


@given(ROWS, QUESTIONS)
def test_keys_may_be_text_and_come_from_arrow_or_numpy(rows: Any, questions: Any) -> None:
    def named(number: int | None) -> str | None:
        return None if number is None else f"card {number}"

    source = payments(*[(named(card), *rest) for card, *rest in rows], key=pa.large_string())
    keys, times = [named(key) for key, _, _ in questions], asked(*(time for _, time, _ in questions))
    numbers = value_at_times(SPEND, payments(*rows), [key for key, _, _ in questions], times)
    arrow = pa.chunked_array([pa.array(keys[:2], pa.string()), pa.array(keys[2:], pa.string())])
    for given_ in (keys, arrow, np.array(keys, object)):
        found = value_at_times(BY_NAME, source, given_, times)
        assert {name: v.tolist() for name, v in found.items()} == {name: v.tolist() for name, v in numbers.items()}


@given(ROWS, ROWS, st.sampled_from([SPEND, DELAYED]), TIMES, st.integers(-1, 26))
def test_no_row_that_is_known_or_happens_after_t_changes_the_value_at_t(
    rows: Any, others: Any, view: WindowedView, time: int, place: int
) -> None:
    past = [row for row in rows if None in row[:3] or max(row[1], row[2]) <= time]
    later = [row for row in [*rows, *others] if None not in row[:3] and max(row[1], row[2]) > time]
    now, before = asked(time, time, time), np.array([place, place, place], np.int64)
    alone, among = (
        value_at_times(view, payments(*known), [1, 2, 3], now, before=before) for known in (past, [*past, *later])
    )
    assert {name: v.tolist() for name, v in alone.items()} == {name: v.tolist() for name, v in among.items()}


@given(ROWS, QUESTIONS, st.sampled_from([SPEND, DELAYED]))
def test_at_ticks_the_values_are_those_of_ticks_but_for_rows_on_an_edge(
    rows: Any, questions: Any, view: WindowedView
) -> None:
    """Ticks hold `[T - d - W, T - d)` and what was known at T; here rows happen between ticks, where both agree."""
    between = [
        (card, None if at is None else at + 0.25, None if known is None else known + 0.5, cents)
        for card, at, known, cents in rows
    ]
    source = payments(*between)
    keys, times = [key for key, _, _ in questions], asked(*(2 * (time // 2) for _, time, _ in questions))
    found = value_at_times(view, source, keys, times)
    for n, (key, tick) in enumerate(zip(keys, times.tolist(), strict=True)):
        kept = [SourceRow(us(at), us(known), {"cents": c}) for of, at, known, c in sound(between) if of == key]
        right = value_at(view, kept, tick, known_by_us=tick) or nothing_of(view)
        assert {name: values[n] for name, values in found.items()} == right


def sound(rows: Sequence[tuple[Any, Any, Any, Any]]) -> list[tuple[Any, Any, Any, Any]]:
    return [row for row in rows if None not in row[:3] and row[1] <= row[2]]


def test_a_row_exactly_a_window_old_has_left_although_a_tick_still_holds_it() -> None:
    source = payments((1, 0, 0, 5), (1, 6, 6, 5))
    assert counts(source, 5.99, 6, 6.01) == [1, 0, 1]
    rows = [SourceRow(us(0), us(0), {"cents": 5}), SourceRow(us(6), us(6), {"cents": 5})]
    assert (value_at(SPEND, rows, us(6)) or {})["nb_3h"] == 1


def test_a_row_at_the_end_of_a_delayed_window_counts_although_a_tick_has_it_not_yet() -> None:
    assert counts(payments((1, 0, 0, 5)), 3.99, 4, 9.99, 10, view=DELAYED) == [0, 1, 1, 0]
    assert value_at(DELAYED, [SourceRow(us(0), us(0), {"cents": 5})], us(4)) is None


def test_a_row_counts_from_when_it_is_known_until_its_window_has_passed() -> None:
    source = payments((1, 0, 4, 5), (1, 0, 6, 5), (1, 0, 30, 5))
    assert counts(source, 3, 4, 4.01, 5.99, 6, 30) == [0, 0, 1, 1, 0, 0]


def test_of_rows_at_the_same_time_those_count_that_stand_before_the_one_that_asks() -> None:
    source = payments((1, 2, 2, 5), (2, 2, 2, 5), (1, 2, 2, 7), (1, 0, 0, 9), (1, 2, 2, 8))
    positions = np.array([0, 2, 3, 4])
    found = value_at_times(SPEND, source, [1, 1, 1, 1], asked(2, 2, 0, 2), before=positions)
    assert found["nb_3h"].tolist() == [1, 2, 0, 3]
    assert found["cents_3h"].tolist() == [9, 14, 0, 21]
    assert counts(source, 2, 0) == [1, 0]


def test_leaks_show_what_an_honest_window_does_not_hold() -> None:
    source = payments((1, 0, 9, 5), (1, 2, 9, 5), (1, 4, 9, 5), (1, 6, 9, 5), (1, 8, 9, 5), (2, 4, 4, 5))
    times, places = (2, 4), np.array([1, 2])

    def found(reach: Reach) -> list[int]:
        return counts(source, *times, view=DELAYED, before=places, reach=reach)

    assert found(DECLARED) == [0, 0]
    assert found(Reach(heed_known=False)) == [0, 1]
    assert found(AT_ONCE) == [1, 2]
    assert found(WITH_ITSELF) == [2, 3]
    assert found(FUTURE) == [3, 3]
    assert found(WHOLE_HISTORY) == [5, 5]
    whole = value_at_times(DELAYED, source, [2, 1, 3], asked(0, 0, 0), reach=WHOLE_HISTORY)
    assert whole["nb_3h"].tolist() == [1, 5, 0]


@pytest.mark.parametrize("reach", [DECLARED, WITH_ITSELF, FUTURE, WHOLE_HISTORY])
def test_a_row_without_a_key_or_a_time_or_known_before_it_happened_never_counts(reach: Reach) -> None:
    source = payments((None, 0, 0, 5), (1, None, 0, 5), (1, 0, None, 5), (1, None, None, 5), (1, 1, 0, 5))
    assert counts(source, 0, 1, view=SPEND, reach=reach) == [0, 0]
    assert counts(source, (to_micros(EPOCH) - to_micros(START)) / HALF_HOUR, reach=reach) == [0]


def test_windows_and_delays_may_be_longer_than_all_of_time() -> None:
    source = payments((1, 0, 0, 5), (1, 1, 1, 7))
    ever = replace(SPEND, windows=[days(999_999_999)])
    assert value_at_times(ever, source, [1, 1], asked(1, 99))["nb_999999999d"].tolist() == [1, 2]
    never = Reach(delay=timedelta.max)
    assert value_at_times(ever, source, [1, 1], asked(1, 99), reach=never)["nb_999999999d"].tolist() == [0, 0]


def handbook(rows: pd.DataFrame, by: str, delay: int) -> pd.DataFrame:
    """Return counts and sums by row as the handbook computes them; with a delay, of two windows the difference."""
    found = pd.DataFrame(index=rows.index)
    for _, group in rows.groupby(by):
        cents = group.set_index("tx_datetime")["cents"]
        late = cents.rolling(f"{delay}d") if delay else None
        for window in (1, 7, 30):
            rolling = cents.rolling(f"{window + delay}d")
            for name in ("count", "sum"):
                values = getattr(rolling, name)() - (getattr(late, name)() if late else 0)
                found.loc[group.index, f"{name}_{window}"] = values.to_numpy()
    return found


@pytest.mark.parametrize("delay", [0, 7])
def test_values_are_those_of_the_handbooks_rolling_windows(delay: int) -> None:
    random = np.random.default_rng(7)
    # Times in a few seconds of each day, so that many are equal and many are exactly a window apart.
    seconds = np.sort(random.integers(0, 45, 600) * 86_400 + random.integers(0, 3, 600))
    at = to_micros(START) + seconds * 1_000_000
    cents, cards = random.integers(1, 5_000, 600), random.integers(0, 8, 600)
    times = pa.array(at).cast(TIME)
    source = pa.table({"card": cards, "at": times, "known_at": times, "cents": cents})
    view = replace(SPEND, windows=[days(1), days(7), days(30)], delay=days(delay))
    ours = value_at_times(view, source, cards, at, before=np.arange(600))
    frame = pd.DataFrame({"card": cards, "tx_datetime": pd.to_datetime(at, unit="us"), "cents": cents})
    theirs = handbook(frame, "card", delay)
    own = 0 if delay else 1  # without a delay their windows hold the row itself
    assert len(set(zip(cards.tolist(), seconds.tolist(), strict=True))) < 500
    for window in (1, 7, 30):
        nb, amount = ours[f"nb_{window}d"] + own, ours[f"cents_{window}d"] + own * cents
        assert nb.tolist() == theirs[f"count_{window}"].tolist()
        assert amount.tolist() == theirs[f"sum_{window}"].tolist()
        if delay:
            mean = (theirs[f"sum_{window}"] / theirs[f"count_{window}"]).fillna(-1.0)
            assert ours[f"mean_{window}d"].tolist() == mean.tolist()


FACTS = st.tuples(
    st.one_of(st.none(), st.sampled_from([0.5, float("nan"), -2.0])),
    st.one_of(st.none(), st.integers(-1, 1)),
    st.sampled_from([None, False, True]),
    st.sampled_from([None, "", "Ulm", "Épinal"]),
    st.one_of(st.none(), st.sampled_from([0, 999_999, 1_000_000, -1]).map(from_micros)),
)
FACT_ROWS = st.lists(st.tuples(CARDS, st.integers(0, 6), st.sampled_from([0, 0, 1, 5, -1]), FACTS), max_size=15)


@given(FACT_ROWS, QUESTIONS)
def test_the_newest_attributes_are_those_of_the_definition(rows: Any, questions: Any) -> None:
    told = [(card, at, at + late, facts) for card, at, late, facts in rows]
    source = payments(*[(card, at, known, 0) for card, at, known, _ in told])
    for n, (name, dtype) in enumerate(PROFILE.columns.items()):
        source = source.append_column(name, pa.array([facts[n] for *_, facts in told], ARROW_TYPES[dtype]))
    keys, times = [key for key, _, _ in questions], asked(*(time / 2 for _, time, _ in questions))
    found = value_at_times(PROFILE, source, keys, times)
    assert [values.dtype for values in found.values()] == [np.float64, np.float64, np.float64, object, object]
    for n, (key, time) in enumerate(zip(keys, times.tolist(), strict=True)):
        kept = [
            SourceRow(us(at), us(known), dict(zip(PROFILE.columns, facts, strict=True)))
            for of, at, known, facts in sound(told)
            if of == key
        ]
        right = value_at(PROFILE, kept, time, known_by_us=time) or nothing_of(PROFILE)
        assert {name: none_if_nan(values[n]) for name, values in found.items()} == right


def test_of_attributes_of_the_same_time_the_greater_win_and_nan_is_as_little_as_null() -> None:
    source = payments((1, 0, 0, 0), (1, 0, 0, 0), (2, 0, 0, 0), (2, 0, 0, 0))
    source = source.append_column("x", pa.array([-2.0, float("nan"), None, float("nan")]))
    source = source.append_column("size", pa.array([0, 9, 2, 1]))
    view = replace(PROFILE, columns={"x": "float64", "size": "int64"})
    found = value_at_times(view, source, [1, 2], asked(1, 1))
    assert [none_if_nan(x) for x in found["x"].tolist()] == [-2.0, None]
    assert found["size"].tolist() == [0, 2]


def none_if_nan(value: Any) -> Any:
    return None if value != value else value


def test_sums_are_whole_numbers_to_the_last_digit_and_ratios_float64() -> None:
    source = payments((1, 0, 0, 2**53), (1, 1, 1, 1))
    found = value_at_times(TOTALS, source, [1, 7], asked(2, 2))
    assert found["cents_3h"].dtype == np.int64
    assert found["cents_3h"].tolist() == [2**53 + 1, 0]
    assert found["mean_3h"].dtype == np.float64
    assert found["mean_3h"].tolist() == [2.0**53 / 2, -1.0]


LEAST, GREATEST = -(2**63), 2**63 - 1


@pytest.mark.parametrize(
    ("cents", "sums"),
    [
        pytest.param([GREATEST, LEAST, GREATEST, -1], [GREATEST, -1, GREATEST - 1, GREATEST - 2], id="the greatest"),
        pytest.param([LEAST, 0, GREATEST, 7], [LEAST, LEAST, -1, 6], id="the least"),
        pytest.param([2**62, -1, 2**62, -(2**62)], [2**62, 2**62 - 1, GREATEST, 2**62 - 1], id="just as much"),
    ],
)
def test_sums_of_64_bits_are_exact_whatever_all_rows_come_to(cents: list[int], sums: list[int]) -> None:
    others = [(card, n, n, GREATEST) for card in (2, 3) for n in (0, 16, 32)]
    source = payments(*((1, n, n, value) for n, value in enumerate(cents)), *others)
    found = value_at_times(TOTALS, source, [1, 1, 1, 1, 2, 2], asked(1, 2, 3, 4, 1, 17))
    assert found["cents_8h"].tolist() == [*sums, GREATEST, GREATEST]


@pytest.mark.parametrize(
    ("view", "cents", "what"),
    [
        pytest.param(TOTALS, [2**62, 2**62], "a sum of cents", id="a sum"),
        pytest.param(TOTALS, [LEAST, -1], "a sum of cents", id="a negative sum"),
        pytest.param(SPEND, [3_037_000_500], "the square of a value of cents", id="a square"),
        pytest.param(SPEND, [LEAST], "the square of a value of cents", id="the square of the least"),
        pytest.param(SPEND, [3_000_000_000, 3_000_000_000], "a sum of cents_squared", id="a sum of squares"),
    ],
)
def test_a_sum_or_square_of_more_than_64_bits_is_refused(view: WindowedView, cents: list[int], what: str) -> None:
    source = payments(*((1, 0, 0, value) for value in cents))
    with pytest.raises(UseCaseError, match=f"view spend: a sum or square left 64 bits: {what}"):
        value_at_times(view, source, [1], asked(1))


def test_a_sum_that_nobody_asks_for_may_be_too_great() -> None:
    source = payments((1, 0, 0, 2**62), (1, 1, 1, 2**62), (2, 0, 0, 2**62), (2, 0, 0, 2**62))
    assert value_at_times(TOTALS, source, [1], asked(0.5))["cents_3h"].tolist() == [2**62]


def test_searching_goes_through_many_questions_in_parts() -> None:
    random = np.random.default_rng(3)
    key, values = np.sort(random.integers(0, 50, 5_000)), random.integers(0, 1_000, 5_000)
    values = values[np.lexsort((values, key))]
    starts = np.searchsorted(key, np.arange(51))
    of, bound = random.integers(0, 50, 100_000), random.integers(-5, 1_005, 100_000)
    found = count_below(values, starts[of], starts[of + 1], bound)
    packed = np.searchsorted(key * 2_000 + values, of * 2_000 + np.clip(bound, 0, 1_000))
    assert (found == packed).all()


def test_a_source_without_rows_has_empty_windows_and_no_attributes() -> None:
    assert counts(payments(), 0, 1) == [0, 0]
    columns = {name: pa.array([], ARROW_TYPES[dtype]) for name, dtype in PROFILE.columns.items()}
    source = pa.table({**{name: payments()[name] for name in ("card", "at", "known_at")}, **columns})
    found = value_at_times(PROFILE, source, [1], asked(0))
    assert np.isnan(found["x"]).tolist() == [True]
    assert found["town"].tolist() == [None]


ONE = payments((1, 0, 0, 5))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        pytest.param(
            {"keys": ["1"]}, BadInput, "its keys are int64, those asked for are string", id="text for numbers"
        ),
        pytest.param({"keys": [1, 2]}, BadInput, r"2 keys, and times_us has the shape \(1,\)", id="too few times"),
        pytest.param({"before": np.array([0, 1])}, BadInput, r"before has the shape \(2,\)", id="too many places"),
        pytest.param({"times_us": np.array([0.5])}, BadInput, "times_us is float64, not int64", id="no whole times"),
        pytest.param({"times_us": asked(0) * 1_000}, BadInput, "in no year from 1 to 9999", id="nanoseconds"),
        pytest.param({"source": ONE.drop_columns("cents")}, SchemaDrift, "has no column cents", id="no such column"),
        pytest.param(
            {"source": ONE.set_column(3, "cents", pa.array([0.5]))},
            SchemaDrift,
            "cents is double in the table and int64 in the view",
            id="another type",
        ),
        pytest.param(
            {"source": ONE.set_column(1, "at", pa.array([0]).cast(pa.timestamp("us")))},
            SchemaDrift,
            "column at is",
            id="a time without a zone",
        ),
        pytest.param(
            {"source": ONE.set_column(2, "known_at", pa.array([2**62]).cast(TIME))},
            SchemaDrift,
            "has a time in no year from 1 to 9999",
            id="a time beyond all",
        ),
        pytest.param({"view": PROFILE, "reach": FUTURE}, NotYetSupported, "profile has no windows", id="no windows"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    right: dict[str, Any] = {"view": SPEND, "source": ONE, "keys": [1], "times_us": asked(0)}
    with pytest.raises(error, match=says):
        value_at_times(**(right | arguments))


@pytest.mark.parametrize(
    ("arguments", "says"), [({"delay": days(-1)}, "delay is -1 day"), ({"rows": "futur"}, "did you mean 'future'")]
)
def test_windows_that_nobody_knows_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Reach(**arguments)


def test_an_attribute_that_float64_cannot_hold_is_refused_not_rounded() -> None:
    view = replace(PROFILE, columns={"size": "int64"})
    with pytest.raises(UseCaseError, match="size has a value that float64 cannot hold"):
        value_at_times(view, ONE.append_column("size", pa.array([2**53 + 1])), [1], asked(1))


def test_a_view_of_another_kind_is_not_worked_out() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Sketch(StoredView):
        kind = "sketch"

        @property
        def features(self) -> dict[str, DataType]:
            return {}

        @property
        def value_columns(self) -> tuple[str, ...]:
            return ()

        @property
        def rules(self) -> dict[str, Any]:
            return {}

        @property
        def least_ttl(self) -> timedelta:
            return days(1)

    view = Sketch(
        name="s",
        entity=SPEND.entity,
        source=SPEND.source,
        every=hours(1),
        ttl=days(2),
        freshness=SPEND.freshness,
        owner="o",
    )
    with pytest.raises(NotYetSupported, match="kind 'sketch'"):
        value_at_times(view, ONE, [1], asked(0))

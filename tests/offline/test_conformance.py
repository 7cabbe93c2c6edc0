"""What every engine must answer: the definition's cases by name, then whatever Hypothesis comes up with."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from engines import ENGINES, ask, feature_rows
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lockstep.clock import from_micros, to_micros
from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.offline.engine import Engine
from lockstep.offline.semantics import ViewRead, as_known

UTC_US = pa.timestamp("us", tz="UTC")
TIMES = [pa.field(name, UTC_US) for name in ("event_timestamp", "created_timestamp")]
SCHEMA = pa.schema([pa.field("card", pa.int64()), pa.field("n", pa.int64()), pa.field("mean", pa.float64()), *TIMES])
T = datetime(2018, 6, 1, 12, tzinfo=UTC)
US = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BIG = 2**63 - 1
READ = ViewRead(table="spend", join_keys={"card": "card"}, columns={"n": "n", "mean": "mean"})

Rows = tuple[int | None, int | None, datetime, datetime]
Answers = Callable[..., list[Any]]


@pytest.fixture
def lake(settings) -> Lake:
    opened = Lake.open(settings, "test")
    opened.ensure_table("spend", SCHEMA, "event_timestamp")
    return opened


@pytest.fixture(params=list(ENGINES))
def engine(request, settings, lake) -> Engine:
    return ENGINES[request.param](settings, lake)


@pytest.fixture
def answers(engine) -> Answers:
    """Ask the engine for `n` of (card, time) pairs."""

    def answers(*asked: tuple[int | None, datetime], read: ViewRead = READ, **options: Any) -> list[Any]:
        return ask(engine, spine_of(*asked), read, **options)["n"].to_pylist()

    return answers


@pytest.fixture
def write(lake) -> Callable[..., None]:
    """Append rows of (card, n, event, created)."""

    def write(*rows: Rows) -> None:
        card, n, event, created = zip(*rows, strict=True)
        mean = [None if x is None else x / 2 for x in n]
        lake.append("spend", pa.table([card, n, mean, event, created], schema=SCHEMA))

    return write


def spine_of(*rows: tuple[int | None, datetime]) -> pa.Table:
    card, time = zip(*rows, strict=True) if rows else ((), ())
    return pa.table({"card": pa.array(card, pa.int64()), "event_timestamp": pa.array(time, UTC_US)})


# Which row answers


def test_a_feature_of_the_very_time_is_included(answers, write) -> None:
    write((1, 5, T, T - HOUR))
    assert answers((1, T), (1, T - US)) == [5, None]


def test_a_row_exactly_ttl_old_answers_and_one_microsecond_older_does_not(answers, write) -> None:
    write((1, 5, T, T))
    read = replace(READ, ttl_us=HOUR // US)
    assert answers((1, T + HOUR), (1, T + HOUR + US), read=read) == [5, None]
    assert answers((1, T + HOUR), read=read) == [5]
    assert answers((1, T + HOUR + US), read=read) == [None]


def test_an_expired_row_is_not_replaced_by_an_older_one(answers, write) -> None:
    write((1, 4, T - HOUR, T - HOUR), (1, 5, T, T))
    assert answers((1, T + 2 * HOUR), read=replace(READ, ttl_us=HOUR // US)) == [None]


def test_without_a_ttl_a_row_answers_for_ever(answers, write) -> None:
    write((1, 5, datetime(1, 1, 2, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC)))
    assert answers((1, datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))) == [5]


def test_a_ttl_longer_than_the_calendar_is_no_limit(answers, write) -> None:
    write((1, 5, T, T))
    assert answers((1, T), read=replace(READ, ttl_us=10**18)) == [5]


def test_the_first_and_the_last_time_of_the_calendar_are_times_like_others(answers, write) -> None:
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    write((1, 5, first, first), (1, 6, last, last))
    asked = ((1, first), (1, last), (1, last - 2 * US))
    assert answers(*asked) == [5, 6, 5]
    assert answers(*asked, read=replace(READ, ttl_us=1)) == [5, 6, None]


def test_of_one_event_time_the_newer_created_answers_once_it_is_known(answers, write) -> None:
    write((1, 6, T, T + HOUR), (1, 5, T, T))
    assert answers((1, T), (1, T + HOUR - US), (1, T + HOUR)) == [5, 5, 6]


def test_of_one_event_time_and_two_created_before_it_the_newer_answers(answers, write) -> None:
    write((1, 6, T, T - MINUTE), (1, 5, T, T - HOUR))
    assert answers((1, T), (1, T + HOUR)) == [6, 6]


def test_what_was_created_later_is_invisible_unless_it_is_asked_for(answers, write) -> None:
    write((1, 5, T, T + HOUR))
    asked = (1, T + MINUTE)
    assert answers(asked) == [None]
    assert answers(asked, known_at=T + HOUR) == [5]
    assert answers(asked, known_at=T + HOUR - US) == [None]


def test_asked_as_known_later_a_correction_answers_for_its_own_time_only(answers, write) -> None:
    write((1, 5, T, T), (1, 6, T, T + 3 * HOUR), (1, 7, T + HOUR, T + HOUR))
    asked = ((1, T), (1, T + HOUR - US), (1, T + HOUR))
    assert answers(*asked, known_at=T + 3 * HOUR - US) == [5, 5, 7]
    assert answers(*asked, known_at=T + 3 * HOUR) == [6, 6, 7]


def test_the_visible_lag_counts_from_the_created_time(answers, write) -> None:
    write((1, 5, T, T + MINUTE))
    read = replace(READ, visible_lag_us=MINUTE // US)
    assert answers((1, T + 2 * MINUTE - US), (1, T + 2 * MINUTE), read=read) == [None, 5]


def test_a_late_row_never_displaces_a_newer_one(answers, write) -> None:
    write((1, 5, T, T), (1, 4, T - HOUR, T + HOUR))
    assert answers((1, T + 2 * HOUR)) == [5]


def test_a_late_row_answers_until_a_newer_one_is_known(answers, write) -> None:
    write((1, 5, T, T + 2 * HOUR), (1, 4, T - HOUR, T + HOUR), (1, 3, T - 2 * HOUR, T))
    times = [T, T + HOUR - US, T + HOUR, T + 2 * HOUR - US, T + 2 * HOUR]
    assert answers(*((1, time) for time in times)) == [3, 3, 4, 4, 5]


def test_ticks_that_fall_exactly_on_an_event_answer_it(answers, write) -> None:
    ticks = [T + number * HOUR for number in range(4)]
    write(*((1, number, tick, tick + 5 * MINUTE) for number, tick in enumerate(ticks)))
    read = replace(READ, visible_lag_us=5 * MINUTE // US, every_us=HOUR // US)
    lags = 10 * MINUTE
    assert answers(*((1, tick + lags) for tick in ticks), read=read) == [0, 1, 2, 3]
    assert answers(*((1, tick + lags - US) for tick in ticks), read=read) == [None, 0, 1, 2]
    assert answers(*((1, tick) for tick in ticks), read=read) == [None, 0, 1, 2]


@pytest.mark.parametrize("every", [1, HOUR // US])
def test_the_days_the_clocks_change_are_days_like_others(every, answers, write) -> None:
    zone = ZoneInfo("America/New_York")
    for number, (year, month, day) in enumerate([(2018, 3, 11), (2018, 11, 4)]):
        # The hour that is missing in March, and the hour that is there twice in November.
        hours = [datetime(year, month, day, 5, tzinfo=UTC) + step * HOUR for step in range(4)]
        write(*((number, step, hour, hour) for step, hour in enumerate(hours)))
        read = replace(READ, every_us=every)
        assert answers(*((number, hour.astimezone(zone)) for hour in hours), read=read) == [0, 1, 2, 3]
        assert answers(*((number, (hour - US).astimezone(zone)) for hour in hours), read=read) == [None, 0, 1, 2]


# Keys and rows


def test_rows_in_no_order_answer_as_if_they_were_in_order(answers, write) -> None:
    times = [T + number * MINUTE for number in (7, 2, 9, 0, 5, 1, 8, 3, 6, 4)]
    write(*((card, time.minute, time, time) for card in (2, 1) for time in times))
    assert answers(*((card, time) for time in times for card in (1, 2))) == [t.minute for t in times for _ in "12"]


def test_a_row_that_is_there_twice_answers_once(answers, write) -> None:
    write((1, 5, T, T), (2, 6, T, T))
    write((1, 5, T, T), (1, 4, T - HOUR, T))
    write((1, 4, T - HOUR, T))
    assert answers((1, T), (1, T - HOUR), (2, T), (1, T)) == [5, None, 6, 5]


def test_unknown_and_null_keys_answer_null(answers, write) -> None:
    write((1, 5, T, T), (None, 6, T, T))
    assert answers((None, T), (1, T), (7, T), (None, T)) == [None, 5, None, None]


def test_a_row_without_a_time_never_answers_and_hides_none(answers, write) -> None:
    write((1, 5, T, T), (1, 6, None, T), (1, 7, T, None))
    assert answers((1, T), (1, T + HOUR), (1, T - HOUR)) == [5, 5, None]


def test_nothing_matches_and_the_rows_stay(answers, write) -> None:
    write((1, 5, T, T))
    assert answers((2, T), (3, T), (1, T - HOUR)) == [None, None, None]


def test_a_table_without_a_snapshot_answers_null(answers) -> None:
    assert answers((1, T)) == [None]


def test_composite_keys_that_read_the_same_when_joined_up_stay_apart(engine, lake) -> None:
    schema = pa.schema([pa.field("a", pa.int64()), pa.field("b", pa.string()), pa.field("n", pa.int64()), *TIMES])
    lake.ensure_table("pairs", schema)
    lake.append("pairs", pa.table([[1, 11], ["11", "1"], [10, 20], [T, T], [T, T]], schema=schema))
    spine = pa.table({"a": [11, 1, 1], "b": ["1", "11", "1"], "event_timestamp": pa.array([T, T, T], UTC_US)})
    found = ask(engine, spine, ViewRead("pairs", {"a": "a", "b": "b"}, {"n": "n"}))
    assert found["n"].to_pylist() == [20, 10, None]


def test_keys_of_any_unicode_are_told_apart_byte_by_byte(engine, lake) -> None:
    keys = ["é", "e\u0301", "日本", "", " ", "a", "A", "😀", "a'b\"c", "\u202e", "ß", "ss"]
    schema = pa.schema([pa.field("名", pa.string()), pa.field("wert €", pa.string()), *TIMES])
    lake.ensure_table("names", schema)
    lake.append("names", pa.table([keys, [f"<{k}>" for k in keys], [T] * 12, [T] * 12], schema=schema))
    spine = pa.table({"key": [*reversed(keys), "e"], "event_timestamp": pa.array([T] * 13, UTC_US)})
    found = ask(engine, spine, ViewRead("names", {"名": "key"}, {"wert €": "v"}))
    assert found["v"].to_pylist() == [*(f"<{k}>" for k in reversed(keys)), None]


def test_one_key_with_a_million_rows(settings, lake) -> None:
    count, step = 1_000_000, MINUTE // US
    events = pa.array(range(0, count * step, step), pa.int64())
    values = pa.array(range(count), pa.int64())
    times = [events.cast(UTC_US), events.cast(UTC_US)]
    rows = pa.table([pa.array([1] * count), values, values.cast(pa.float64()), *times], schema=SCHEMA)
    lake.ensure_table("hot", SCHEMA)
    lake.append("hot", rows)
    asked = [-1, 0, 1, 59_999_999, 60_000_000, (count - 1) * step - 1, (count - 1) * step, 2 * count * step]
    spine = spine_of(*((1, from_micros(time)) for time in asked))
    found = ask(ENGINES["duckdb"](settings, lake), spine, replace(READ, table="hot"))
    assert found["n"].to_pylist() == [None, 0, 0, 0, 1, count - 2, count - 1, count - 1]


# The spine


def test_order_and_duplicates_of_the_spine_are_kept_with_all_its_columns(engine, write) -> None:
    write((1, 5, T, T), (2, 6, T, T))
    spine = spine_of((2, T), (1, T), (2, T), (3, T), (1, T - HOUR), (1, T))
    spine = spine.append_column("label", pa.array([0, 1, 0, 1, 1, 1], pa.uint8()))
    found = ask(engine, spine, READ)
    assert found.select(spine.column_names).equals(spine)
    assert found["n"].to_pylist() == [6, 5, 6, None, None, 5]


def test_a_spine_of_several_parts_is_answered_in_order(settings, lake, write) -> None:
    write(*((card, card, T, T) for card in range(7)))
    spine = spine_of(*((card, T) for card in (6, 0, 3, 3, 9, 5, 1)))
    engine = ENGINES["duckdb"](settings.model_copy(update={"retrieval_rows": 3}), lake)
    parts = list(engine.retrieve(spine, [READ], time_column="event_timestamp", known_at=None))
    assert [part["n"].to_pylist() for part in parts] == [[6, 0, 3], [3, None, 5], [1]]
    assert pa.concat_tables(parts).select(spine.column_names).equals(spine)


def test_an_empty_spine_gives_an_empty_table_of_the_right_types(engine, write) -> None:
    write((1, 5, T, T))
    found = ask(engine, spine_of(), READ)
    assert found.num_rows == 0
    assert found.schema.field("n").type == pa.int64()
    assert found.schema.field("mean").type == pa.float64()


def test_features_that_are_named_like_columns_of_the_spine_are_kept_apart_by_their_full_names(engine, write) -> None:
    write((1, 5, T, T))
    spine = spine_of((1, T)).append_column("n", pa.array([77])).append_column("mean", pa.array(["label"]))
    found = ask(engine, spine, replace(READ, columns={"n": "spend__n", "mean": "spend__mean"}))
    assert found.to_pylist() == [
        {"card": 1, "event_timestamp": T, "n": 77, "mean": "label", "spend__n": 5, "spend__mean": 2.5}
    ]


def test_columns_that_are_named_like_parts_of_a_query_are_columns_like_others(engine, lake) -> None:
    names = ["row", "at", "event", "visible", "lag", "late", "prompt", "available", "f1", "n_y", "select", 'a"b', "k0"]
    schema = pa.schema([pa.field("s", pa.int64()), *(pa.field(name, pa.int64()) for name in names), *TIMES])
    lake.ensure_table("odd", schema)
    lake.append("odd", pa.table([[1], *([number] for number in range(len(names))), [T], [T]], schema=schema))
    spine = pa.table({"k0": [1], "event": pa.array([T], UTC_US), "row": [9], "at": [8]})
    read = ViewRead("odd", {"s": "k0"}, {name: f"odd__{name}" for name in names}, every_us=MINUTE // US)
    found = ask(engine, spine, read, time_column="event")
    assert found.select(spine.column_names).equals(spine)
    assert [found[f"odd__{name}"].to_pylist() for name in names] == [[number] for number in range(len(names))]


def test_two_views_are_read_beside_each_other_through_keys_of_other_names(engine, write) -> None:
    write((1, 5, T, T), (2, 6, T, T))
    spine = pa.table({"payer": [1, 2], "payee": [2, 3], "event_timestamp": pa.array([T, T], UTC_US)})
    found = ask(
        engine,
        spine,
        ViewRead("spend", {"card": "payer"}, {"n": "payer_n"}),
        ViewRead("spend", {"card": "payee"}, {"n": "payee_n", "mean": "payee_mean"}),
    )
    assert found.column_names == ["payer", "payee", "event_timestamp", "payer_n", "payee_n", "payee_mean"]
    assert found["payer_n"].to_pylist() == [5, 6]
    assert found["payee_n"].to_pylist() == [6, None]
    assert found["payee_mean"].to_pylist() == [3.0, None]


@pytest.mark.parametrize("kind", [("us", "America/New_York"), ("ns", "UTC"), ("s", "UTC"), ("ms", "+05:30")])
def test_times_in_another_zone_or_unit_are_the_same_times(kind, engine, write) -> None:
    write((1, 5, T, T))
    spine = spine_of((1, T), (1, T - timedelta(seconds=1)))
    spine = spine.set_column(1, "event_timestamp", spine["event_timestamp"].cast(pa.timestamp(*kind)))
    found = ask(engine, spine, READ)
    assert found["n"].to_pylist() == [5, None]
    assert found["event_timestamp"].type == pa.timestamp(*kind)


# Values


VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "bool": (pa.bool_(), [True, False, None]),
    "int32": (pa.int32(), [2**31 - 1, -(2**31), None]),
    "int64": (pa.int64(), [BIG, -BIG - 1, None, 2**53 + 1]),
    # Without -0.0: DuckDB 2.0's ASOF join gives 0.0 for it, the same number.
    "float32": (pa.float32(), [0.1, 1e-45, None, float("nan")]),
    "float64": (pa.float64(), [0.1, 5e-324, None, float("inf"), float("nan"), -0.0]),
    "string": (pa.string(), ["", "日本 😀 e\u0301", None, "a\nb\t'\""]),
    "bytes": (pa.binary(), [b"", b"\x00\xff", None]),
    "timestamp": (UTC_US, [T + US, datetime(1, 1, 1, tzinfo=UTC), None, datetime(9999, 12, 31, tzinfo=UTC)]),
    "decimal": (pa.decimal128(38, 9), [Decimal("12345678901234567890123456789.123456789"), Decimal("-1E-9"), None]),
    "integers": (pa.list_(pa.int64()), [[BIG, None, -BIG], [], None, [1]]),
    "strings": (pa.list_(pa.string()), [["a", None, "日"], [], None]),
    "decimals": (pa.list_(pa.decimal128(20, 2)), [[Decimal("999999999999999999.99"), None], [], None]),
    "times": (pa.list_(UTC_US), [[T + US, None], [], None]),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_come_back_to_the_last_bit_beside_nulls(kind, engine, lake) -> None:
    data_type, values = VALUES[kind]
    schema = pa.schema([pa.field("card", pa.int64()), pa.field("v", data_type), *TIMES])
    lake.ensure_table("values", schema)
    times = [T] * len(values)
    lake.append("values", pa.table([range(len(values)), values, times, times], schema=schema))
    asked = [*range(len(values)), 99]
    read = ViewRead("values", {"card": "card"}, {"v": "v"})
    found = ask(engine, spine_of(*((card, T) for card in asked)), read)["v"]
    assert found.type == data_type
    expected = pa.array([*values, None], data_type).to_pylist()
    assert [repr(value) for value in found.to_pylist()] == [repr(value) for value in expected]


# Snapshots


def test_an_older_snapshot_answers_as_it_did(answers, write, lake) -> None:
    write((1, 5, T, T))
    first = lake.current("spend")
    write((1, 6, T + MINUTE, T + MINUTE))
    assert answers((1, T + HOUR), read=replace(READ, snapshot_id=first.id)) == [5]
    assert answers((1, T + HOUR)) == [6]


def test_rows_that_contradict_each_other_are_refused_and_named(settings, lake, write) -> None:
    write((1, 5, T, T), (2, 6, T, T + MINUTE), (3, 7, T, T))
    write((2, 66, T, T + MINUTE), (3, 7, T, T), (2, 6, T, T))
    engine = ENGINES["duckdb"](settings, lake)
    said = r"spend: two rows of card=2 have the event time 2018-06-01T12:00:00\+00:00 and the created time 2018-06-01T12:01"
    with pytest.raises(BadInput, match=said) as refused:
        ask(engine, spine_of((2, T)), READ)
    assert "write a correction with a later created time" in refused.value.hint
    assert ask(engine, spine_of((3, T), (1, T)), READ)["n"].to_pylist() == [7, 5], "nobody asks for card 2"


# Against the definition

_NUMBERS = count()
KEYS = st.tuples(st.sampled_from(["1", "11", ""]), st.integers(0, 2))
ROWS = st.lists(st.tuples(KEYS, st.integers(0, 12), st.integers(-3, 16)), max_size=25, unique_by=lambda row: row)
ASKED = st.lists(st.tuples(st.one_of(KEYS, st.tuples(st.none(), st.integers(0, 2))), st.integers(-2, 20)), max_size=15)
READS = st.builds(
    ViewRead,
    table=st.just(""),
    join_keys=st.just({"a": "left", "b": "b"}),
    columns=st.just({"id": "id", "n": "n"}),
    ttl_us=st.sampled_from([0, 1, 3, 8]),
    visible_lag_us=st.sampled_from([0, 1, 4]),
    every_us=st.sampled_from([1, 2, 4, 5]),
)


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "definition"])
@hypothesis_settings(
    max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS, asked=ASKED, read=READS, known_at=st.one_of(st.none(), st.integers(-2, 22)))
def test_retrieval_is_what_the_definition_says(name, settings, lake, rows, asked, read, known_at) -> None:
    keys, events, created = zip(*rows, strict=True) if rows else ((), (), ())
    table = pa.table(
        {
            "a": pa.array([key[0] for key in keys], pa.string()),
            "b": pa.array([key[1] for key in keys], pa.int32()),
            "n": pa.array([BIG - i if i % 4 else None for i in range(len(rows))], pa.int64()),
            "id": pa.array(range(len(rows)), pa.int64()),
            "event_timestamp": pa.array(events, pa.int64()).cast(UTC_US),
            "created_timestamp": pa.array(created, pa.int64()).cast(UTC_US),
        }
    )
    spine = pa.table(
        {
            "left": pa.array([key[0] for key, _ in asked], pa.string()),
            "event_timestamp": pa.array([t for _, t in asked], pa.int64()).cast(UTC_US),
            "b": pa.array([key[1] for key, _ in asked], pa.int32()),
        }
    )
    read = replace(read, table=f"case_{next(_NUMBERS)}")
    lake.ensure_table(read.table, table.schema)
    lake.append(read.table, table)
    known = None if known_at is None else from_micros(known_at)
    found = ask(ENGINES[name](settings, lake), spine, read, known_at=known)
    offered = feature_rows(table, read)
    expected = [
        as_known(offered, key, t, t if known is None else to_micros(known), read.ttl_us, read.visible_lag_us)
        for key, t in asked
    ]
    assert found.select(spine.column_names).equals(spine)
    for column in ("id", "n"):
        assert found[column].to_pylist() == [row and row.values[column] for row in expected]

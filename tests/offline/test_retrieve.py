"""Point-in-time retrieval on DuckDB against the definition in plain Python, and the cases that definitions are for."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lockstep.clock import from_micros, to_micros
from lockstep.errors import BadInput, NotYetSupported, SchemaDrift, VerificationFailed
from lockstep.lake import Lake
from lockstep.lake.engine import connect, quote
from lockstep.offline.cut import Cut, current_cut, reading
from lockstep.offline.duckdb import retrieve
from lockstep.offline.semantics import FeatureRow, ViewRead, as_known, require_same_rows
from lockstep.settings import Settings

UTC_US = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("card", pa.int64()),
        pa.field("n", pa.int64()),
        pa.field("mean", pa.float64()),
        pa.field("event_timestamp", UTC_US),
        pa.field("created_timestamp", UTC_US),
    ]
)
T = datetime(2018, 6, 1, 12, tzinfo=UTC)
US = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BIG = 2**63 - 1
READ = ViewRead(table="spend", join_keys={"card": "card"}, columns={"n": "n", "mean": "mean"})


@pytest.fixture
def lake(settings) -> Lake:
    opened = Lake.open(settings, "test")
    opened.ensure_table("spend", SCHEMA, "event_timestamp")
    return opened


def feature_rows(*rows: tuple[int, int | None, datetime, datetime]) -> pa.Table:
    card, n, event, created = zip(*rows, strict=True) if rows else ((), (), (), ())
    mean = [None if x is None else x / 2 for x in n]
    return pa.table([card, n, mean, event, created], schema=SCHEMA)


def spine_of(*rows: tuple[int | None, datetime]) -> pa.Table:
    card, time = zip(*rows, strict=True) if rows else ((), ())
    return pa.table({"card": pa.array(card, pa.int64()), "event_timestamp": pa.array(time, UTC_US)})


def ask(settings, lake, spine: pa.Table, read: ViewRead = READ, **options: Any) -> list[int | None]:
    with connect(settings) as connection:
        return retrieve(lake, connection, spine, [read], **options)["n"].to_pylist()


# Against the definition


class _TableInMemory:
    """As much of a lake as retrieval needs, over an Arrow table: Hypothesis asks hundreds of times."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def table(self, _: str) -> "_TableInMemory":
        return self

    def schema(self) -> "_TableInMemory":
        return self

    def as_arrow(self) -> pa.Schema:
        return self._rows.schema

    def register(self, connection, view, _name, *, columns: Sequence[str], snapshot_id, within) -> None:
        connection.register("all_rows", self._rows)
        wanted = ", ".join(map(quote, columns))
        connection.execute(f"CREATE TEMP VIEW {view} AS SELECT {wanted} FROM all_rows WHERE {within.sql()}")


KEYS = st.tuples(st.sampled_from(["1", "11", ""]), st.integers(0, 2))
MICROS = st.integers(0, 12)
ROWS = st.lists(
    st.builds(FeatureRow, key=KEYS, event_us=MICROS, created_us=st.integers(-3, 16)),
    max_size=25,
    unique_by=lambda r: (r.key, r.event_us, r.created_us),
)
ASKED = st.lists(st.tuples(st.one_of(KEYS, st.tuples(st.none(), st.integers(0, 2))), st.integers(-2, 20)), max_size=15)


@hypothesis_settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=ROWS,
    asked=ASKED,
    ttl=st.sampled_from([0, 1, 3, 8]),
    lag=st.sampled_from([0, 1, 4]),
    known_at=st.one_of(st.none(), st.integers(-2, 22)),
)
def test_retrieval_is_what_the_definition_says(rows, asked, ttl, lag, known_at) -> None:
    table = pa.table(
        {
            "a": pa.array([r.key[0] for r in rows], pa.string()),
            "b": pa.array([r.key[1] for r in rows], pa.int32()),
            "n": pa.array([BIG - i if i % 4 else None for i in range(len(rows))], pa.int64()),
            "id": pa.array(range(len(rows)), pa.int64()),
            "event_timestamp": pa.array([r.event_us for r in rows], pa.int64()).cast(UTC_US),
            "created_timestamp": pa.array([r.created_us for r in rows], pa.int64()).cast(UTC_US),
        }
    )
    spine = pa.table(
        {
            "left": pa.array([key[0] for key, _ in asked], pa.string()),
            "event_timestamp": pa.array([t for _, t in asked], pa.int64()).cast(UTC_US),
            "b": pa.array([key[1] for key, _ in asked], pa.int32()),
        }
    )
    read = ViewRead("view", {"a": "left", "b": "b"}, {"id": "id", "n": "n"}, ttl_us=ttl, visible_lag_us=lag)
    with duckdb.connect() as connection:
        found = retrieve(
            _TableInMemory(table),
            connection,
            spine,
            [read],
            known_at=None if known_at is None else from_micros(known_at),
        )
    expected = [as_known(rows, key, t, t if known_at is None else known_at, ttl, lag) for key, t in asked]
    numbers = [None if row is None else rows.index(row) for row in expected]
    assert found.select(spine.column_names).equals(spine)
    assert found["id"].to_pylist() == numbers
    assert found["n"].to_pylist() == [None if i is None or i % 4 == 0 else BIG - i for i in numbers]


# By name


def test_a_feature_of_the_very_time_is_included(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 5, T, T - HOUR)))
    assert ask(settings, lake, spine_of((1, T), (1, T - US))) == [5, None]


def test_a_row_exactly_ttl_old_answers_and_one_microsecond_older_does_not(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 5, T, T)))
    read = replace(READ, ttl_us=HOUR // US)
    assert ask(settings, lake, spine_of((1, T + HOUR), (1, T + HOUR + US)), read) == [5, None]
    assert ask(settings, lake, spine_of((1, T + HOUR)), read) == [5]
    assert ask(settings, lake, spine_of((1, T + HOUR + US)), read) == [None]


def test_an_expired_row_is_not_replaced_by_an_older_one(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 4, T - HOUR, T - HOUR), (1, 5, T, T)))
    assert ask(settings, lake, spine_of((1, T + 2 * HOUR)), replace(READ, ttl_us=HOUR // US)) == [None]


def test_of_one_event_time_the_newer_created_answers_once_it_is_known(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 6, T, T + HOUR), (1, 5, T, T)))
    assert ask(settings, lake, spine_of((1, T), (1, T + HOUR - US), (1, T + HOUR))) == [5, 5, 6]


def test_what_was_created_later_is_invisible_unless_it_is_asked_for(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 5, T, T + HOUR)))
    asked = spine_of((1, T + MINUTE))
    assert ask(settings, lake, asked) == [None]
    assert ask(settings, lake, asked, known_at=T + HOUR) == [5]
    assert ask(settings, lake, asked, known_at=T + HOUR - US) == [None]


def test_the_visible_lag_counts_from_the_created_time(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 5, T, T + MINUTE)))
    read = replace(READ, visible_lag_us=MINUTE // US)
    assert ask(settings, lake, spine_of((1, T + 2 * MINUTE - US), (1, T + 2 * MINUTE)), read) == [None, 5]


def test_a_late_row_never_displaces_a_newer_one(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 5, T, T), (1, 4, T - HOUR, T + HOUR)))
    assert ask(settings, lake, spine_of((1, T + 2 * HOUR))) == [5]


def test_integers_beyond_2_to_53_stay_what_they_are_beside_nulls(settings, lake) -> None:
    lake.append("spend", feature_rows((1, BIG, T, T), (2, None, T, T), (3, -BIG, T, T)))
    with connect(settings) as connection:
        found = retrieve(lake, connection, spine_of((1, T), (2, T), (3, T), (4, T)), [READ])
    assert found.schema.field("n").type == pa.int64()
    assert found["n"].to_pylist() == [BIG, None, -BIG, None]


def test_composite_keys_that_read_the_same_when_joined_up_stay_apart(settings, lake) -> None:
    times = {"event_timestamp": [T, T], "created_timestamp": [T, T]}
    rows = pa.table({"a": [1, 11], "b": ["11", "1"], "n": [10, 20], **times})
    rows = rows.cast(pa.schema([*list(rows.schema)[:3], *list(SCHEMA)[-2:]]))
    lake.ensure_table("pairs", rows.schema)
    lake.append("pairs", rows)
    spine = pa.table({"a": [11, 1], "b": ["1", "11"], "event_timestamp": pa.array([T, T], UTC_US)})
    read = ViewRead("pairs", {"a": "a", "b": "b"}, {"n": "n"})
    assert ask(settings, lake, spine, read) == [20, 10]


def test_a_null_key_answers_null(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 5, T, T)))
    assert ask(settings, lake, spine_of((None, T), (1, T), (None, T))) == [None, 5, None]


def test_order_and_duplicates_of_the_spine_are_kept_with_all_its_columns(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 5, T, T), (2, 6, T, T)))
    spine = spine_of((2, T), (1, T), (2, T), (3, T), (1, T - HOUR), (1, T))
    spine = spine.append_column("label", pa.array([0, 1, 0, 1, 1, 1], pa.uint8()))
    with connect(settings) as connection:
        found = retrieve(lake, connection, spine, [READ])
        assert not connection.sql("SHOW TABLES").fetchall()
    assert found.select(spine.column_names).equals(spine)
    assert found["n"].to_pylist() == [6, 5, 6, None, None, 5]


def test_an_empty_spine_gives_an_empty_table_of_the_right_types(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 5, T, T)))
    with connect(settings) as connection:
        found = retrieve(lake, connection, spine_of(), [READ])
    assert found.num_rows == 0
    assert found.schema.field("n").type == pa.int64()
    assert found.schema.field("mean").type == pa.float64()


def test_a_table_without_a_snapshot_answers_null(settings, lake) -> None:
    assert ask(settings, lake, spine_of((1, T))) == [None]


def test_an_older_snapshot_answers_as_it_did(settings, lake) -> None:
    first = lake.append("spend", feature_rows((1, 5, T, T)))
    lake.append("spend", feature_rows((1, 6, T + MINUTE, T + MINUTE)))
    asked = spine_of((1, T + HOUR))
    assert ask(settings, lake, asked, replace(READ, snapshot_id=first.id)) == [5]
    assert ask(settings, lake, asked) == [6]


def test_two_views_are_read_beside_each_other_through_keys_of_other_names(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 5, T, T), (2, 6, T, T)))
    spine = pa.table({"payer": [1, 2], "payee": [2, 3], "event_timestamp": pa.array([T, T], UTC_US)})
    reads = [
        ViewRead("spend", {"card": "payer"}, {"n": "payer_n"}),
        ViewRead("spend", {"card": "payee"}, {"n": "payee_n", "mean": "payee_mean"}),
    ]
    with connect(settings) as connection:
        found = retrieve(lake, connection, spine, reads)
    assert found.column_names == ["payer", "payee", "event_timestamp", "payer_n", "payee_n", "payee_mean"]
    assert found["payer_n"].to_pylist() == [5, 6]
    assert found["payee_n"].to_pylist() == [6, None]
    assert found["payee_mean"].to_pylist() == [3.0, None]


def test_times_in_another_zone_or_unit_are_the_same_times(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 5, T, T)))
    for kind in (pa.timestamp("us", tz="America/New_York"), pa.timestamp("ns", tz="UTC"), pa.timestamp("s", tz="UTC")):
        spine = spine_of((1, T), (1, T - timedelta(seconds=1)))
        spine = spine.set_column(1, "event_timestamp", spine["event_timestamp"].cast(kind))
        assert ask(settings, lake, spine) == [5, None]


def test_a_ttl_longer_than_the_calendar_is_no_limit(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 5, T, T)))
    assert ask(settings, lake, spine_of((1, T)), replace(READ, ttl_us=10**18)) == [5]


ZONED = """
import sys
from lockstep.lake import Lake
from lockstep.lake.engine import connect
from lockstep.offline.duckdb import retrieve
from lockstep.offline.semantics import ViewRead
from lockstep.settings import Settings
import duckdb, time
import pyarrow as pa
settings = Settings(home=sys.argv[1]).resolved()
lake = Lake.open(settings, "test")
times = pa.array(map(int, sys.argv[2:]), pa.int64()).cast(pa.timestamp("us", tz="UTC"))
spine = pa.table({"card": [1, 1], "event_timestamp": times})
read = ViewRead("spend", {"card": "card"}, {"n": "n"}, ttl_us=3_600_000_000)
print(time.tzname[0], *(retrieve(lake, c, spine, [read])["n"].to_pylist() for c in (connect(settings), duckdb.connect())))
"""


def test_the_zone_of_the_process_changes_nothing(settings, lake) -> None:
    lake.append("spend", feature_rows((1, 5, T, T)))
    asked = [str(to_micros(time)) for time in (T + HOUR, T - US)]
    done = subprocess.run(
        [sys.executable, "-c", ZONED, str(settings.home), *asked],
        env={**os.environ, "TZ": "America/New_York", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "EST [5, None] [5, None]"


# What is refused


def refusal(settings: Settings, lake: Lake, spine: pa.Table, *reads: ViewRead, **options: Any) -> str:
    with connect(settings) as connection, pytest.raises((BadInput, SchemaDrift, NotYetSupported)) as refused:
        retrieve(lake, connection, spine, reads or [READ], **options)
    assert refused.value.hint or isinstance(refused.value, NotYetSupported)
    return str(refused.value)


def test_a_spine_without_its_time_is_refused(settings, lake) -> None:
    spine = spine_of((1, T)).rename_columns(["card", "event_time"])
    assert "no column 'event_timestamp'" in refusal(settings, lake, spine)
    assert "did you mean 'event_time'?" in refusal(settings, lake, spine)


def test_naive_times_are_refused(settings, lake) -> None:
    spine = pa.table({"card": [1], "event_timestamp": pa.array([datetime(2018, 6, 1)], pa.timestamp("us"))})  # noqa: DTZ001
    assert "have no zone" in refusal(settings, lake, spine)
    assert "has no time zone" in refusal(settings, lake, spine_of((1, T)), known_at=datetime(2018, 6, 1))  # noqa: DTZ001


def test_times_that_are_text_are_refused(settings, lake) -> None:
    assert "is string, no time" in refusal(settings, lake, pa.table({"card": [1], "event_timestamp": ["2018-06-01"]}))


def test_a_missing_time_is_refused(settings, lake) -> None:
    assert "1 of 2 rows" in refusal(settings, lake, spine_of((1, T), (1, None)))


def test_a_time_finer_than_a_microsecond_is_refused(settings, lake) -> None:
    spine = pa.table({"card": [1], "event_timestamp": pa.array([1], pa.timestamp("ns", tz="UTC"))})
    assert "whole microseconds" in refusal(settings, lake, spine)


def test_a_time_outside_the_calendar_is_refused(settings, lake) -> None:
    spine = pa.table({"card": [1], "event_timestamp": pa.array([BIG], pa.int64()).cast(UTC_US)})
    assert "leaves the calendar" in refusal(settings, lake, spine)


def test_a_missing_join_key_is_refused(settings, lake) -> None:
    said = refusal(settings, lake, spine_of((1, T)).rename_columns(["cards", "event_timestamp"]))
    assert "lacks the join key 'card' of spend" in said
    assert "did you mean 'cards'?" in said


def test_a_key_of_another_type_is_refused(settings, lake) -> None:
    spine = spine_of((1, T))
    said = refusal(settings, lake, spine.set_column(0, "card", spine["card"].cast(pa.int32())))
    assert "card is int32, the join key of spend is int64" in said


def test_a_spine_column_named_like_a_feature_is_refused(settings, lake) -> None:
    spine = spine_of((1, T)).append_column("mean", pa.array([1.0]))
    assert "would add the column 'mean', which the spine has already" in refusal(settings, lake, spine)


def test_two_views_with_one_name_for_a_feature_are_refused(settings, lake) -> None:
    assert "'n', which another view has already" in refusal(settings, lake, spine_of((1, T)), READ, READ)


def test_a_spine_with_a_column_twice_is_refused(settings, lake) -> None:
    spine = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["card", "card"])
    assert "has the column card twice" in refusal(settings, lake, spine)


def test_a_column_the_table_lacks_is_schema_drift(settings, lake) -> None:
    with connect(settings) as connection, pytest.raises(SchemaDrift, match="no column 'nn'"):
        retrieve(lake, connection, spine_of((1, T)), [replace(READ, columns={"nn": "nn"})])


def test_a_view_without_a_key_and_a_table_that_is_not_there_are_refused(settings, lake) -> None:
    assert "no join key" in refusal(settings, lake, spine_of((1, T)), replace(READ, join_keys={}))
    assert "did you mean 'spend'?" in refusal(settings, lake, spine_of((1, T)), replace(READ, table="spent"))


def test_rows_lost_doubled_or_moved_are_an_error() -> None:
    for answered in ([0], [0, 1, 1], [1, 0]):
        with pytest.raises(VerificationFailed, match="2 rows were asked for"):
            require_same_rows("spend", 2, pa.chunked_array([pa.array(answered, pa.int64())]))
    require_same_rows("spend", 2, pa.chunked_array([pa.array([0]), pa.array([1])]))


# The cut


def test_a_cut_holds_inside_its_block_only() -> None:
    cut = Cut({"spend": 7}, T)
    with reading(cut):
        assert current_cut() is cut
        with reading(None):
            assert current_cut() is None
        assert current_cut() is cut
    assert current_cut() is None
    assert cut.snapshot("spend") == 7


def test_a_cut_refuses_what_it_does_not_name_and_corrections_without_a_time() -> None:
    with pytest.raises(BadInput, match="no snapshot of 'labels'"):
        Cut({"spend": 7}).snapshot("labels")
    with pytest.raises(BadInput, match="needs known_at"):
        Cut({}, corrected=True)
    with pytest.raises(BadInput, match="has no time zone"):
        Cut({}, datetime(2018, 6, 1))  # noqa: DTZ001

"""What retrieval refuses before any data is read, and what the zone of the process does not change."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lockstep.clock import to_micros
from lockstep.errors import BadInput, NotYetSupported, SchemaDrift, VerificationFailed
from lockstep.lake import Lake
from lockstep.lake.engine import connect
from lockstep.offline.duckdb import retrieve
from lockstep.offline.semantics import ViewRead, require_same_rows
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

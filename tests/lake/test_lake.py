"""The lake's tables: appends, time travel, files by sequence number, pruning."""

from datetime import timedelta

import pyarrow as pa
import pytest

from lockstep.clock import parse_time
from lockstep.errors import BadInput, SchemaDrift
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange, connect
from tests.lake.compaction import compact

SCHEMA = pa.schema([pa.field("at", pa.timestamp("us", tz="UTC")), pa.field("n", pa.int64())])
T = parse_time("2018-06-01T12:00:00Z")
BIG = 2**63 - 1


@pytest.fixture
def lake(settings) -> Lake:
    opened = Lake.open(settings, "test")
    opened.ensure_table("events", SCHEMA, "at")
    return opened


def rows(*numbers: int, day: int = 0) -> pa.Table:
    return pa.table({"at": [T + timedelta(days=day)] * len(numbers), "n": list(numbers)}).cast(SCHEMA)


def read(settings, lake, **options) -> list[int]:
    with connect(settings) as connection:
        lake.register(connection, "events", "events", columns=["at", "n"], **options)
        return [n for (n,) in connection.execute("SELECT n FROM events ORDER BY n").fetchall()]


def test_what_is_appended_is_read_back_to_the_last_bit(settings, lake) -> None:
    lake.append("events", rows(BIG, -BIG, 0))
    assert read(settings, lake) == [-BIG, 0, BIG]


def test_an_empty_append_is_a_snapshot_with_properties(lake) -> None:
    lake.append("events", rows(1))
    empty = lake.append("events", SCHEMA.empty_table(), {"why": "tick"})
    assert empty.sequence == 2
    assert empty.properties["why"] == "tick"
    assert [s.sequence for s in lake.snapshots("events")] == [1, 2]


def test_an_older_snapshot_reads_as_it_was(settings, lake) -> None:
    first = lake.append("events", rows(1))
    lake.append("events", rows(2))
    assert read(settings, lake, snapshot_id=first.id) == [1]


def lives(lake: Lake) -> list[tuple[int, int | None]]:
    return [(life.born, life.died) for life in lake.past("events").lives]


def test_files_are_told_by_the_snapshots_that_added_them_also_after_manifests_merged(lake) -> None:
    for n in range(30):
        lake.append("events", rows(n, day=n % 3))
    assert lives(lake) == [(n, None) for n in range(1, 31)]
    assert len(lake.table("events").current_snapshot().manifests(lake.table("events").io)) < 30


def test_a_compaction_brings_one_file_for_those_that_it_takes(settings, lake) -> None:
    for n in range(3):
        lake.append("events", rows(n))
    compact(lake.table("events"))
    lake.append("events", rows(7))
    assert [s.operation for s in lake.snapshots("events")] == ["append", "append", "append", "replace", "append"]
    assert lives(lake) == [(1, 4), (2, 4), (3, 4), (4, None), (5, None)]
    assert read(settings, lake) == [0, 1, 2, 7]


def test_what_was_before_a_compaction_is_unknown_once_the_appends_have_expired(lake) -> None:
    first, second = lake.append("events", rows(0)), lake.append("events", rows(1))
    compact(lake.table("events"))
    lake.table("events").maintenance.expire_snapshots().by_id(first.id).commit()
    assert lives(lake) == [(1, 3), (2, 3), (3, None)]
    assert lake.past("events").knows(1), "the second append still lists the first one's file"
    lake.table("events").maintenance.expire_snapshots().by_id(second.id).commit()
    past = lake.past("events")
    assert [(life.born, life.died) for life in past.lives] == [(3, None)]
    assert [past.knows(sequence) for sequence in (0, 1, 2, 3, 4)] == [True, False, False, True, True]


def test_expired_appends_are_known_by_the_files_of_the_next_living_one(lake) -> None:
    made = [lake.append("events", rows(n)) for n in range(4)]
    for snapshot in made[1:3]:
        lake.table("events").maintenance.expire_snapshots().by_id(snapshot.id).commit()
    past = lake.past("events")
    assert lives(lake) == [(1, None), (2, None), (3, None), (4, None)]
    assert all(past.knows(sequence) for sequence in range(5))


def test_a_deletion_ends_a_file_and_begins_one_with_what_is_left(lake) -> None:
    lake.append("events", rows(1, 2))
    lake.append("events", rows(3))
    lake.table("events").delete("n = 1")
    assert lives(lake) == [(1, 3), (2, None), (3, None)]
    lake.append("events", rows(4))
    lake.table("events").delete("n = 4")
    assert lives(lake) == [(1, 3), (2, None), (3, None), (4, 5)], "a file that is all deleted leaves nothing"


def test_what_was_between_a_deletion_and_the_living_snapshot_before_it_is_unknown(lake) -> None:
    lake.append("events", rows(1, 2))
    between = lake.append("events", rows(3))
    lake.table("events").delete("n = 1")
    lake.table("events").maintenance.expire_snapshots().by_id(between.id).commit()
    past = lake.past("events")
    assert [past.knows(sequence) for sequence in (1, 2, 3)] == [True, False, True]


def test_a_gap_in_which_nobody_sees_what_happened_is_unknown(lake) -> None:
    """A number of which the next living snapshot lists no file may have been a compaction, a deletion or rolled back."""
    made = [lake.append("events", rows(n)) for n in range(2)]
    lake.table("events").manage_snapshots().set_current_snapshot(snapshot_id=made[0].id).commit()
    lake.append("events", rows(3))
    lake.table("events").maintenance.expire_snapshots().by_id(made[1].id).commit()
    assert [lake.past("events").knows(sequence) for sequence in (1, 2, 3)] == [True, False, True]


def test_what_a_rollback_left_behind_is_not_of_the_lineage_and_its_files_ended(lake) -> None:
    for n in range(3):
        lake.append("events", rows(n))
    _, second, _ = lake.snapshots("events")
    lake.table("events").manage_snapshots().set_current_snapshot(snapshot_id=second.id).commit()
    assert [s.sequence for s in lake.lineage("events")] == [1, 2]
    for n in (4, 5):
        lake.append("events", rows(n))
    assert [s.sequence for s in lake.lineage("events")] == [1, 2, 4, 5]
    assert lives(lake) == [(1, None), (2, None), (3, 4), (4, None), (5, None)]
    for gone in (second.id, lake.snapshots("events")[3].id):
        lake.table("events").maintenance.expire_snapshots().by_id(gone).commit()
    assert [s.sequence for s in lake.lineage("events")] == [1, 3, 5], "of an expired parent nobody knows who it was"


def test_files_outside_the_time_range_are_not_planned(settings, lake) -> None:
    for day in range(4):
        lake.append("events", rows(day, day=day))
    within = TimeRange("at", T + timedelta(days=1), T + timedelta(days=2, microseconds=1))
    with connect(settings) as connection:
        lake.register(connection, "events", "events", columns=["n"], within=within)
        (sql,) = connection.execute("SELECT sql FROM duckdb_views() WHERE view_name = 'events'").fetchone()
    assert sql.count(".parquet") == 2
    assert read(settings, lake, within=within) == [1, 2]


def test_rows_that_do_not_fit_are_refused_by_column(lake) -> None:
    wrong = pa.table({"at": [T], "n": ["1"], "m": [1]})
    with pytest.raises(SchemaDrift, match=r"has unknown m; n is string, not int64"):
        lake.append("events", wrong)
    with pytest.raises(SchemaDrift, match="lacks at"):
        lake.append("events", pa.table({"n": [1]}))


def test_a_table_that_exists_with_other_columns_is_drift(lake) -> None:
    with pytest.raises(SchemaDrift, match="n is string, not int64"):
        lake.ensure_table("events", pa.schema([SCHEMA.field("at"), pa.field("n", pa.string())]))


def test_an_unknown_table_names_the_nearest(lake) -> None:
    with pytest.raises(BadInput, match="did you mean 'events'"):
        lake.table("event")


def test_a_tag_is_set_once(lake) -> None:
    snapshot = lake.append("events", rows(1))
    lake.tag("events", snapshot.id, "training-1")
    lake.append("events", rows(2))
    lake.tag("events", snapshot.id, "training-1")
    assert lake.table("events").metadata.refs["training-1"].snapshot_id == snapshot.id


def test_a_table_without_a_snapshot_has_no_past(lake) -> None:
    past = lake.past("events")
    assert (past.lives, past.sequences, past.unknown) == ([], [], [])
    assert past.knows(0)

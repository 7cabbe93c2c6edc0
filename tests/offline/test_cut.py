"""The cut: where history is read, named by every retrieval, and read again byte for byte while its snapshots live."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from tiny_case import spend, use_case

from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.offline.cut import Cut, current_cut, reading
from lockstep.offline.history import training_features
from lockstep.offline.registry import apply_definitions, feature_store

T = datetime(2018, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SPINE = pa.table(
    {
        "card_id": [2, 1, 1, 9],
        "event_timestamp": pa.array([T + HOUR, T + HOUR, T + 3 * HOUR, T], pa.timestamp("us", tz="UTC")),
        "amount": [10, 20, 30, 40],
    }
)


@pytest.fixture
def lake(settings) -> Lake:
    lake = Lake.open(settings, use_case.project)
    lake.ensure_table(spend.table, spend.schema, "event_timestamp")
    write(lake, (1, 3, 600, T), (2, None, 7, T))
    apply_definitions(settings, use_case)
    return lake


def write(lake: Lake, *rows: tuple[int, int | None, int, datetime]) -> int:
    card, n, cents, event = zip(*rows, strict=True)
    created = [time + timedelta(minutes=5) for time in event]
    return lake.append(spend.table, pa.table([card, n, cents, event, created], schema=spend.schema)).id


def as_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def test_the_cut_that_came_with_rows_gives_the_same_bytes_again_whatever_was_written_since(settings, lake) -> None:
    first = training_features(settings, use_case, "tiny_v1", SPINE)
    write(lake, (1, 4, 900, T + HOUR), (1, 5, 1, T - HOUR), (2, 6, 2, T + HOUR / 2), (9, 1, 1, T - HOUR))
    again = training_features(settings, use_case, "tiny_v1", SPINE, first.cut)
    assert as_bytes(again.rows) == as_bytes(first.rows)
    assert again.cut == first.cut
    newest = training_features(settings, use_case, "tiny_v1", SPINE)
    assert newest.cut != first.cut
    assert as_bytes(newest.rows) != as_bytes(first.rows)


def test_a_tag_keeps_a_cut_alive_and_without_one_it_expires_and_is_refused_by_name(settings, lake) -> None:
    tagged = training_features(settings, use_case, "tiny_v1", SPINE)
    lake.tag(spend.table, tagged.cut.snapshots[spend.table], "training-1")
    untagged = Cut({spend.table: write(lake, (1, 4, 900, T + HOUR))})
    write(lake, (1, 5, 1_000, T + 2 * HOUR))
    expire = lake.table(spend.table).maintenance.expire_snapshots()
    expire.older_than(datetime.now(UTC) + HOUR).commit()
    again = training_features(settings, use_case, "tiny_v1", SPINE, tagged.cut)
    assert as_bytes(again.rows) == as_bytes(tagged.rows)
    with pytest.raises(BadInput, match=f"spend has no snapshot {untagged.snapshots['spend']}") as expired:
        training_features(settings, use_case, "tiny_v1", SPINE, untagged)
    assert "it may have expired; a tag would have kept it" in expired.value.hint


def test_an_expired_cut_is_refused_when_the_job_is_created(settings, lake) -> None:
    store = feature_store(settings, use_case)
    with reading(Cut({spend.table: 12345})), pytest.raises(BadInput, match="no snapshot 12345"):
        store.get_historical_features(entity_df=SPINE, features=["spend:cents_1d"])


def test_a_cut_survives_being_written_down() -> None:
    for cut in (Cut({}), Cut({"b": 2**63 - 1, "a": 1}, T), Cut({"a": 1}, T, corrected=True)):
        assert Cut.from_json(cut.to_json()) == cut
    assert Cut({"b": 1, "a": 2}).to_json() == Cut({"a": 2, "b": 1}).to_json()


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
        Cut({}, replace(Cut({}, T)).known_at.replace(tzinfo=None))

"""What was deleted or overwritten in the lake goes back online too, with a real Redis and real Iceberg snapshots."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from lockstep.errors import BadInput, Terminal, Transient, VerificationFailed
from lockstep.lake import Lake
from lockstep.lake.snapshots import Snapshot
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode, Scope
from lockstep.materialize.rows import IntervalRows, Share
from lockstep.online.epoch import EpochStore
from lockstep.online.layout import EntityKeys
from lockstep.online.withdraw import LIMIT_CREATED, LIMIT_EVENT, StoredTimes, take_back
from lockstep.online.writer import write_rows
from tests.lake.compaction import compact
from tests.materialize.spend import SPEND, VIEW, T, bring_back, contents, copy_of, served, tell_no_run, tick


@pytest.fixture
def rows(lake: Lake, spend: Materializer) -> None:
    """Three cards are online; card 1 has two rows in the lake, each in a file of its own."""
    tick(lake, 0, c1=1, c2=2, c3=3)
    spend.run()
    tick(lake, 1, c1=5)
    spend.run()


pytestmark = pytest.mark.usefixtures("rows")


def newest(lake: Lake) -> Snapshot:
    found = lake.current("spend")
    assert found
    return found


def expire(lake: Lake, *, up_to: int) -> None:
    """Let all snapshots up to a sequence number expire."""
    for snapshot in lake.snapshots("spend"):
        if snapshot.sequence <= up_to:
            lake.table("spend").maintenance.expire_snapshots().by_id(snapshot.id).commit()


def test_a_key_whose_newest_row_was_deleted_goes_back_to_the_one_before(lake, spend, online) -> None:
    lake.table("spend").delete("nb_1d = 5")
    done = spend.run()
    assert (done.rows_accepted, done.rows_rejected) == (1, 0)
    assert served(online, 1, 2, 3) == [1, 2, 3]
    assert not spend.diagnose().problems
    assert spend.run() is None


def test_a_key_without_a_row_is_removed_and_others_stay_as_they_are(lake, spend, online, store) -> None:
    kept = EntityKeys("test", VIEW.join_keys).encode({"card": [1]})[0]
    store.hset(EntityKeys("test", VIEW.join_keys).encode({"card": [2]})[0], b"_ts:other view", b"theirs")
    before = contents(store)[kept]
    lake.table("spend").delete("card = 2")
    lake.table("spend").delete("card = 3")
    spend.run()
    assert served(online, 1, 2, 3) == [5, None, None]
    assert contents(store) == {
        kept: before,
        EntityKeys("test", VIEW.join_keys).encode({"card": [2]})[0]: {b"_ts:other view": b"theirs"},
    }


def test_a_row_that_was_overwritten_under_the_same_times_is_corrected(lake, spend, online) -> None:
    """What a statement `UPDATE` leaves behind: one snapshot that deletes and one that appends, or one that overwrites."""
    row = {"card": 2, "nb_1d": 7, "event_timestamp": T, "created_timestamp": T + timedelta(minutes=5)}
    lake.table("spend").overwrite(pa.Table.from_pylist([row], SPEND.schema), overwrite_filter="card = 2")
    spend.run()
    assert served(online, 1, 2, 3) == [5, 7, 3]


def test_what_was_deleted_and_comes_anew_in_the_same_interval_is_online(lake, spend, online) -> None:
    lake.table("spend").delete("card = 1")
    tick(lake, 2, c1=9)
    compact(lake.table("spend"))
    spend.run()
    assert served(online, 1, 2, 3) == [9, 2, 3]


def test_an_older_row_that_comes_with_a_deletion_is_online(lake, spend, online) -> None:
    lake.table("spend").delete("card = 1")
    tick(lake, -3, c1=9)
    spend.run()
    assert served(online, 1) == [9]


def test_what_is_newer_online_than_what_was_deleted_stays(lake, spend, online, store) -> None:
    tick(lake, 4, c2=8)
    late = lake.table("spend").scan(row_filter="nb_1d = 8").to_arrow().cast(SPEND.schema)
    lake.table("spend").delete("nb_1d = 8 or card = 3")
    spend.run()
    write_rows(store, "test", VIEW, late)
    lake.table("spend").delete("card = 2")
    plan = spend.plan()
    done = spend.write(plan.interval, plan.chunks[0])
    assert (done.accepted, done.rejected) == (1, 1)  # card 1 was in a file that was written anew
    spend.verify(plan.interval, [done])
    assert served(online, 2) == [8]


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_deletion_that_was_killed_half_way_is_finished(lake, spend, online, chunks: int) -> None:
    lake.table("spend").delete("nb_1d = 5 or card = 3")
    plan = spend.plan(chunks)
    for chunk in plan.chunks[: max(1, chunks - 1)]:
        spend.write(plan.interval, chunk)
    assert spend.run().id == plan.interval
    assert served(online, 1, 2, 3) == [1, 2, None]


def test_a_store_that_was_flushed_before_a_deletion_came_online_holds_what_is_left(lake, spend, online, store) -> None:
    lake.table("spend").delete("card = 3")
    store.flushall()
    spend.run()
    assert served(online, 1, 2, 3) == [5, 2, None]
    assert not spend.diagnose().problems


@pytest.mark.parametrize("kept", [1, 2])
def test_where_history_has_expired_the_store_is_looked_through(lake, spend, online, caplog, kept: int) -> None:
    lake.table("spend").delete("card = 3")
    tick(lake, 2, c2=6)
    last = newest(lake)
    expire(lake, up_to=last.sequence - kept)
    done = spend.run()
    assert served(online, 1, 2, 3) == [5, 6, None]
    assert ("1 keys of spend were online with rows that the lake does not have" in caplog.text) is (
        done.writes_from > 0
    )
    assert not spend.diagnose().problems


def roll_back(lake: Lake, sequence: int) -> None:
    (before,) = (s for s in lake.snapshots("spend") if s.sequence == sequence)
    lake.table("spend").manage_snapshots().set_current_snapshot(snapshot_id=before.id).commit()


def test_what_was_rolled_back_is_taken_back_and_comes_again_when_it_is_rolled_forward(
    lake, spend, online, caplog
) -> None:
    roll_back(lake, 1)
    done = spend.run()
    assert (done.mode, done.sequence_to, done.watermark) == (Mode.REPAIR, 1, T)
    assert "spend was rolled back or forward to snapshot" in caplog.text
    assert served(online, 1, 2, 3) == [1, 2, 3]
    assert spend.run() is None
    assert not spend.diagnose().problems
    roll_back(lake, 2)
    spend.run()
    assert served(online, 1, 2, 3) == [5, 2, 3]
    roll_back(lake, 1)
    spend.run()
    tick(lake, 2, c2=6)
    done = spend.run()
    assert (done.mode, done.sequence_from, done.sequence_to) == (Mode.INTERVAL, 2, 3)
    assert served(online, 1, 2, 3) == [1, 6, 3]
    assert not spend.diagnose().problems


def test_a_store_that_is_lost_while_the_table_is_rolled_back_is_filled(lake, spend, online, store) -> None:
    roll_back(lake, 1)
    spend.run()
    store.flushall()
    spend.run()
    assert served(online, 1, 2, 3) == [1, 2, 3]
    assert spend.run() is None


@pytest.mark.parametrize("expired", [False, True])
def test_what_was_rolled_back_before_the_next_snapshot_is_taken_back_with_it(
    lake, spend, online, expired: bool
) -> None:
    roll_back(lake, 1)
    tick(lake, 2, c2=6)
    if expired:
        (abandoned,) = (s for s in lake.snapshots("spend") if s.sequence == 2)
        lake.table("spend").maintenance.expire_snapshots().by_id(abandoned.id).commit()
    spend.run()
    assert served(online, 1, 2, 3) == [1, 6, 3]
    assert not spend.diagnose().problems


@pytest.mark.parametrize("snapshots", [1, 2, 3])
def test_a_table_that_was_dropped_and_made_again_is_another_one(lake, spend, online, snapshots: int) -> None:
    tick(lake, 2, c3=9)
    spend.plan()  # and is never finished
    lake.drop("spend")
    lake.ensure_table("spend", SPEND.schema, "event_timestamp")
    for hour in range(snapshots):
        tick(lake, -hour, c2=9 - hour)
    done = spend.run()
    assert (done.sequence_from, done.sequence_to) == (0, snapshots)
    assert served(online, 1, 2, 3) == [None, 9, None]
    assert spend.run() is None
    assert not spend.diagnose().problems


def test_a_write_that_is_tried_again_after_the_commit_takes_back_nothing(lake, spend, online) -> None:
    lake.table("spend").delete("nb_1d = 5")
    plan = spend.plan()
    written = spend.write(plan.interval, plan.chunks[0])
    spend.verify(plan.interval, [written])
    spend.commit(plan.interval)
    tick(lake, 1, c1=5)
    spend.run()
    late = spend.write(plan.interval, plan.chunks[0])
    assert (late.accepted, late.rejected) == (0, 0)
    spend.verify(plan.interval, [late])
    assert served(online, 1, 2, 3) == [5, 2, 3]


def test_a_write_that_goes_on_while_another_run_ends_takes_back_nothing_more(
    lake, spend, online, store, monkeypatch
) -> None:
    lake.table("spend").delete("nb_1d = 5")
    other = Materializer(online, lake, Ledger.open(online, "test"), store, "test", SPEND)
    plan, withdrawn = spend.plan(), IntervalRows.withdrawn

    def overtaken(*given: object) -> Iterator[pa.Table]:
        parts = list(withdrawn(*given))
        monkeypatch.undo()
        other.run()
        tick(lake, 1, c1=5)
        other.run()
        yield from parts

    monkeypatch.setattr(IntervalRows, "withdrawn", overtaken)
    spend.write(plan.interval, plan.chunks[0])
    assert served(online, 1, 2, 3) == [5, 2, 3]


def test_what_another_run_brings_online_during_a_diagnosis_is_no_leftover(
    lake, spend, online, store, monkeypatch
) -> None:
    other, seen = Materializer(online, lake, Ledger.open(online, "test"), store, "test", SPEND), StoredTimes.__iter__

    def overtaken(*given: object) -> Iterator[pa.Table]:
        tick(lake, 2, c3=7)
        other.run()
        yield from seen(*given)

    monkeypatch.setattr(StoredTimes, "__iter__", overtaken)
    assert spend.diagnose().leftovers == 0


def test_a_leftover_that_changed_since_it_was_seen_is_left_alone(lake, store, online) -> None:
    """It may be an older row now: another run has taken it back already."""
    times = [T + timedelta(hours=2)], SPEND.schema.field("event_timestamp").type
    gone = lake.table("spend").scan(row_filter="card = 2").to_arrow().cast(SPEND.schema).slice(0, 1)
    for name in SPEND.schema.names[1:]:
        at = SPEND.schema.names.index(name)
        gone = gone.set_column(at, pa.field(name, gone.schema.field(at).type), pa.nulls(1, gone.schema.field(at).type))
    gone = gone.append_column(LIMIT_EVENT, pa.array(*times)).append_column(LIMIT_CREATED, pa.array(*times))
    assert take_back(store, "test", VIEW, gone, exactly=True) == (0, 1)
    assert served(online, 2) == [2]
    assert take_back(store, "test", VIEW, gone) == (1, 0)
    assert take_back(store, "test", VIEW, gone, exactly=True) == (0, 1)
    assert served(online, 2) == [None]


def test_a_repair_leaves_alone_what_another_run_changed_since_it_looked(
    lake, spend, online, store, monkeypatch
) -> None:
    (key,) = EntityKeys("test", VIEW.join_keys).encode({"card": [9]})
    row = {"card": 9, "nb_1d": 4, "event_timestamp": T, "created_timestamp": T}
    late = row | {"event_timestamp": T + timedelta(hours=2)}
    write_rows(store, "test", VIEW, pa.Table.from_pylist([late], SPEND.schema))
    leftovers = IntervalRows.leftovers

    def overtaken(*given: Any) -> Iterator[pa.Table]:
        parts = list(leftovers(*given))
        assert [part["card"].to_pylist() for part in parts] == [[9]]
        store.delete(key)
        write_rows(store, "test", VIEW, pa.Table.from_pylist([row], SPEND.schema))
        yield from parts

    monkeypatch.setattr(IntervalRows, "leftovers", overtaken)
    spend.run(everything=True)
    assert served(online, 9) == [4]


def test_history_that_expires_between_two_chunks_loses_no_deletion(lake, spend, online) -> None:
    cards = {f"c{card}": 1 for card in range(4, 40)}
    tick(lake, 2, **cards)
    spend.run()
    lake.table("spend").delete("card >= 3")
    plan = spend.plan(chunks=2)
    spend.write(plan.interval, plan.chunks[0])
    expire(lake, up_to=newest(lake).sequence - 1)
    with pytest.raises(Transient, match="snapshots have expired since interval 4 was planned"):
        spend.write(plan.interval, plan.chunks[1])
    assert spend.run().id == plan.interval
    assert served(online, *range(1, 40)) == [5, 2, *[None] * 37]
    assert not spend.diagnose().problems


def test_a_file_that_went_and_came_back_is_written_again_where_the_store_lost_only_that(
    lake, spend, online, store, monkeypatch
) -> None:
    lake.table("spend").delete("card = 3")
    plan = spend.plan()
    written = spend.write(plan.interval, plan.chunks[0])
    held = copy_of(store)
    spend.verify(plan.interval, [written])
    spend.commit(plan.interval)
    roll_back(lake, 2)
    tick(lake, 2, c2=6)
    bring_back(store, held)  # a copy that was made while the card was taken back
    tell_no_run(monkeypatch)
    done = spend.run()
    assert (done.sequence_from, done.writes_from, done.scope) == (3, 2, Scope.CHANGED)
    assert served(online, 1, 2, 3) == [5, 6, 3]
    assert not spend.diagnose().problems


def test_an_interval_whose_snapshot_expired_before_it_was_written_gives_way_to_one_that_goes_further(
    lake, spend, online
) -> None:
    tick(lake, 2, c2=6)
    plan = spend.plan()
    tick(lake, 3, c3=7)
    expire(lake, up_to=newest(lake).sequence - 1)
    with pytest.raises(BadInput, match="may have expired"):
        spend.write(plan.interval, plan.chunks[0])
    done = spend.run()
    assert (done.sequence_from, done.sequence_to) == (2, newest(lake).sequence)
    with pytest.raises(Terminal, match=f"no interval {plan.interval}\n\nHint: it was given up"):
        spend.write(plan.interval, plan.chunks[0])
    assert served(online, 1, 2, 3) == [5, 6, 7]
    assert spend.run() is None


@pytest.mark.parametrize("expired", [False, True])
@pytest.mark.parametrize("goes_on", [False, True])
def test_an_interval_that_was_rolled_back_while_it_was_written_gives_way(
    lake, spend, online, expired: bool, goes_on: bool
) -> None:
    tick(lake, 2, c2=6)
    plan = spend.plan()
    spend.write(plan.interval, plan.chunks[0])
    gone = newest(lake)
    roll_back(lake, 2)
    if goes_on:
        tick(lake, 2, c3=7)
    if expired:
        lake.table("spend").maintenance.expire_snapshots().by_id(gone.id).commit()
    assert served(online, 1, 2, 3) == [5, 6, 3]
    done = spend.run()
    assert (done.mode, done.id > plan.interval) == (Mode.INTERVAL if goes_on else Mode.REPAIR, True)
    assert served(online, 1, 2, 3) == [5, 2, 7 if goes_on else 3]
    assert spend.run() is None
    assert not spend.diagnose().problems


def test_what_was_written_of_an_interval_that_is_given_up_for_a_shorter_one_is_taken_back(lake, spend, online) -> None:
    tick(lake, 2, c2=6)
    tick(lake, 3, c3=7)
    plan = spend.plan()
    spend.write(plan.interval, plan.chunks[0])
    roll_back(lake, 3)
    spend.run()
    assert served(online, 1, 2, 3) == [5, 6, 3]
    assert not spend.diagnose().problems


def test_what_was_written_of_a_repair_that_is_given_up_is_written_again(lake, spend, online) -> None:
    roll_back(lake, 1)
    plan = spend.plan()
    spend.write(plan.interval, plan.chunks[0])
    roll_back(lake, 2)
    tick(lake, 2, c2=6)
    expire(lake, up_to=1)
    spend.run()
    assert served(online, 1, 2, 3) == [5, 6, 3]
    assert not spend.diagnose().problems


def test_what_was_written_of_a_repair_after_an_older_copy_is_taken_back_when_it_is_given_up(
    lake, spend, online, store, monkeypatch
) -> None:
    older = copy_of(store)
    tick(lake, 2, c1=8)
    spend.run()
    bring_back(store, older)
    tell_no_run(monkeypatch)
    tick(lake, 3, c3=7)
    plan = spend.plan()
    spend.write(plan.interval, plan.chunks[0])
    roll_back(lake, 3)
    spend.run()
    assert served(online, 1, 2, 3) == [8, 2, 3]
    assert not spend.diagnose().problems


def test_what_was_written_of_another_table_and_not_finished_is_taken_back(lake, spend, online) -> None:
    whole = lake.table("spend")
    lake.drop("spend")
    lake.ensure_table("spend", SPEND.schema, "event_timestamp")
    tick(lake, 3, c1=8, c9=9)
    plan = spend.plan()
    spend.write(plan.interval, plan.chunks[0])
    lake.drop("spend")
    whole.catalog.register_table(("test", "spend"), whole.metadata_location)
    tick(lake, 4, c2=6)
    spend.run()
    assert served(online, 1, 2, 3, 9) == [5, 6, 3, None]
    assert not spend.diagnose().problems


@pytest.mark.parametrize("finished", [False, True])
def test_a_table_that_was_set_back_to_older_metadata_goes_on_with_numbers_it_had_before(
    lake, spend, online, finished: bool
) -> None:
    before = lake.table("spend")
    tick(lake, 2, c3=9)
    plan = spend.plan()
    spend.write(plan.interval, plan.chunks[0])
    if finished:
        spend.run()
    lake.drop("spend")
    before.catalog.register_table(("test", "spend"), before.metadata_location)
    tick(lake, 3, c2=6)
    if finished:
        tick(lake, 4, c2=7)
    spend.run()
    assert served(online, 1, 2, 3) == [5, 7 if finished else 6, 3]
    assert not spend.diagnose().problems


def test_a_repair_holds_what_its_own_snapshot_says_though_a_later_one_has_newer_rows(lake, spend, online) -> None:
    roll_back(lake, 1)
    plan = spend.plan()
    tick(lake, 3, c1=8)
    spend.verify(plan.interval, [spend.write(plan.interval, chunk) for chunk in plan.chunks])
    spend.commit(plan.interval)
    assert served(online, 1, 2, 3) == [1, 2, 3]
    roll_back(lake, 1)
    assert spend.run() is None
    assert not spend.diagnose().problems


def test_a_run_that_another_one_overtook_finds_nothing_lost(lake, spend, online, store, monkeypatch, caplog) -> None:
    other = Materializer(online, lake, Ledger.open(online, "test"), store, "test", SPEND)
    tick(lake, 2, c2=6)
    of_view = EpochStore.of_view

    def overtaken(*given: Any) -> Any:
        monkeypatch.undo()
        told = of_view(*given)
        other.run()
        return told

    monkeypatch.setattr(EpochStore, "of_view", overtaken)
    assert spend.run() is None
    assert "has lost writes" not in caplog.text


def test_what_was_rolled_forward_again_comes_with_the_next_snapshot(lake, spend, online) -> None:
    roll_back(lake, 1)
    spend.run()
    roll_back(lake, 2)
    tick(lake, 2, c2=6)
    assert spend.run().writes_from == 1
    assert served(online, 1, 2, 3) == [5, 6, 3]
    assert not spend.diagnose().problems


def test_a_deletion_that_was_rolled_back_and_forward_again_is_one(lake, spend, online) -> None:
    lake.table("spend").delete("card = 3")
    spend.run()
    roll_back(lake, 2)
    spend.run()
    assert served(online, 1, 2, 3) == [5, 2, 3]
    roll_back(lake, 3)
    tick(lake, 2, c2=6)
    spend.run()
    assert served(online, 1, 2, 3) == [5, 6, None]
    assert not spend.diagnose().problems


def test_a_table_that_takes_its_name_back_is_online_again(lake, spend, online) -> None:
    tick(lake, 2, c2=6)
    spend.plan()  # and is never finished: its number is less than those of the other table
    whole = lake.table("spend")
    lake.drop("spend")
    lake.ensure_table("spend", SPEND.schema, "event_timestamp")
    tick(lake, 3, c1=7)
    spend.run()
    assert served(online, 1, 2, 3) == [7, None, None]
    lake.drop("spend")
    whole.catalog.register_table(("test", "spend"), whole.metadata_location)
    assert any("of another table that was called spend" in problem for problem in spend.diagnose().problems)
    spend.run()
    assert served(online, 1, 2, 3) == [5, 6, 3]
    assert spend.run() is None
    assert not spend.diagnose().problems


def test_a_writer_of_a_table_that_was_dropped_meanwhile_stops(lake, spend, online, store, monkeypatch) -> None:
    tick(lake, 2, c1=6, c2=6, c3=6)
    plan = spend.plan()
    other = Materializer(online, lake, Ledger.open(online, "test"), store, "test", SPEND)

    def dropped() -> None:
        lake.drop("spend")
        lake.ensure_table("spend", SPEND.schema, "event_timestamp")
        tick(lake, 0, c1=9)
        other.run()

    one_by_one(monkeypatch, dropped)
    with pytest.raises(Transient, match="is being written anew"):
        spend.write(plan.interval, plan.chunks[0])
    assert served(online, 1, 2, 3) == [9, None, None]


def test_a_writer_of_an_interval_that_was_given_up_meanwhile_stops(lake, spend, online, store, monkeypatch) -> None:
    tick(lake, 2, c1=6, c2=6, c3=6)
    plan = spend.plan()
    other = Materializer(online, lake, Ledger.open(online, "test"), store, "test", SPEND)

    def goes_on() -> None:
        lake.table("spend").delete("card = 3")
        expire(lake, up_to=newest(lake).sequence - 1)
        other.run()

    one_by_one(monkeypatch, goes_on)
    with pytest.raises(Terminal, match="it was given up"):
        spend.write(plan.interval, plan.chunks[0])
    assert served(online, 1, 2, 3) == [6, 6, None]


def one_by_one(monkeypatch: pytest.MonkeyPatch, before_the_second: Callable[[], object]) -> None:
    """Have the next write find its rows one at a time."""
    found = IntervalRows.newest

    def parts(rows: IntervalRows, share: Share) -> Iterator[pa.Table]:
        monkeypatch.undo()
        each = [part.slice(row, 1) for part in found(rows, share) for row in range(part.num_rows)]
        for number, part in enumerate(sorted(each, key=lambda part: part["card"][0].as_py())):
            if number == 1:
                before_the_second()
            yield part

    monkeypatch.setattr(IntervalRows, "newest", parts)


def test_chunks_that_were_planned_differently_are_not_verified_as_one(lake, spend, online) -> None:
    tick(lake, 2, c1=6, c2=6)
    plan = spend.plan(chunks=2)
    first = spend.write(plan.interval, plan.chunks[0])
    spend.plan(chunks=2, everything=True)
    second = spend.write(plan.interval, plan.chunks[1])
    with pytest.raises(Transient, match="is being written anew"):
        spend.verify(plan.interval, [first, second])


def test_of_rows_with_the_same_times_it_is_always_the_same_one(lake, spend, online) -> None:
    """It is whoever wrote them that has to say which is right; but no repair turns one into the other."""
    for value in (1, 2, 3):
        tick(lake, 2, **{f"c{card}": value for card in range(1, 30)})
    spend.run()
    first = served(online, *range(1, 30))
    for _ in range(3):
        spend.run(everything=True)
        assert served(online, *range(1, 30)) == first


def test_a_row_that_nobody_knows_of_is_named_by_a_diagnosis_and_taken_back_by_a_repair(
    lake, spend, online, store, caplog
) -> None:
    foreign = lake.table("spend").scan(row_filter="card = 2").to_arrow().cast(SPEND.schema)
    foreign = foreign.set_column(0, SPEND.schema.field(0), pa.array([9], SPEND.schema.field(0).type))
    write_rows(store, "test", VIEW, foreign)
    assert (
        "1 keys are online with rows that the lake does not have: `lockstep repair spend`" in spend.diagnose().problems
    )
    assert spend.run(everything=True).mode is Mode.REPAIR
    assert "1 keys of spend were online" in caplog.text
    assert served(online, 1, 2, 3, 9) == [5, 2, 3, None]
    assert not spend.diagnose().problems


def test_a_stock_feast_row_of_a_deleted_key_is_taken_back(lake, spend, online, store) -> None:
    (key,) = EntityKeys("test", VIEW.join_keys).encode({"card": [3]})
    store.hdel(key, "_lockstep:spend")
    lake.table("spend").delete("card = 3")
    spend.run()
    assert not store.exists(key)


def test_keys_that_only_look_alike_are_left_alone(store, spend) -> None:
    (key,) = EntityKeys("test", VIEW.join_keys).encode({"card": [3]})
    others: Iterator[bytes] = iter([key[:-4] + b"more" + b"test", key + b"test", b"\x01\x00\x00\x00test"])
    for other in others:
        store.hset(other, "_ts:spend", b"\x08\x01")
    before = contents(store)
    spend.run(everything=True)
    assert contents(store) == before


@pytest.mark.parametrize("times", [b"\xff", b"\x08" + b"\xff" * 8 + b"\x7f", b""], ids=["none", "far off", "1970"])
def test_times_that_nobody_wrote_are_named_and_mended(lake, spend, online, store, times: bytes) -> None:
    """A corrupted field stops neither a diagnosis nor a repair, and a key that only it holds goes."""
    held, foreign = EntityKeys("test", VIEW.join_keys).encode({"card": [2, 9]})
    for key in (held, foreign):
        store.hset(key, b"_ts:spend", times)
    assert spend.diagnose().leftovers == (2 if times else 1)
    tick(lake, 2, c2=7)
    if len(times) > 1:  # it is later than anything
        with pytest.raises(VerificationFailed, match="first card=2\n\nHint: another writer may be using"):
            spend.run()
    spend.run(everything=True)
    assert served(online, 1, 2, 3, 9) == [5, 7, 3, None]
    assert not spend.diagnose().problems


def test_times_that_could_not_be_read_and_have_been_mended_since_are_left_alone(
    lake, spend, online, store, monkeypatch
) -> None:
    (key,) = EntityKeys("test", VIEW.join_keys).encode({"card": [2]})
    store.hset(key, b"_ts:spend", b"\xff")
    seen = StoredTimes(store, "test", VIEW)
    assert sum(part.num_rows for part in seen) == 2
    spend.run(everything=True)
    assert seen.remove_unreadable() == 0
    assert served(online, 1, 2, 3) == [5, 2, 3]

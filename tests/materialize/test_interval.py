"""Bringing a view online with a real Redis: reruns, crashes, lost stores."""

import re
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pytest
import redis

from lockstep.clock import to_micros
from lockstep.errors import BadInput, LostStore, Transient, VerificationFailed
from lockstep.lake.snapshots import TICK
from lockstep.local.redis import LocalRedis
from lockstep.materialize import doctor, wholeness
from lockstep.materialize.doctor import Diagnosis
from lockstep.materialize.interval import Chunk, Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode, Scope, State
from lockstep.online.epoch import EpochStore, ViewEpoch
from lockstep.online.layout import EntityKeys
from lockstep.online.place import Place
from lockstep.online.writer import add_digests
from tests.interrupted import interrupted
from tests.lake.compaction import compact
from tests.materialize.spend import SPEND, VIEW, T, bring_back, contents, copy_of, served, tell_no_run, tick


def test_the_newest_row_of_each_key_goes_online(lake, spend, online, store) -> None:
    tick(lake, 0, c1=1, c2=2)
    tick(lake, 1, c1=5)
    done = spend.run()
    assert (done.state, done.rows_accepted, done.rows_rejected) == (State.COMMITTED, 2, 0)
    assert served(online, 1, 2, 3) == [5, 2, None]


def test_a_run_with_nothing_new_writes_nothing(lake, spend) -> None:
    tick(lake, 0, c1=1)
    spend.run()
    assert spend.run() is None


def test_an_interval_starts_where_the_last_one_ended_and_moves_the_watermark(lake, spend, store) -> None:
    tick(lake, 0, c1=1)
    first = spend.run()
    tick(lake, 1)
    second = spend.run()
    assert (second.sequence_from, second.rows_accepted) == (first.sequence_to, 0)
    committed = EpochStore(store, "test").read().views["spend"].committed
    assert (committed.interval, committed.watermark_us) == (second.id, to_micros(T + timedelta(hours=1)))


def test_a_row_that_arrives_late_for_an_older_tick_does_not_replace_a_newer_one(lake, spend, online, store) -> None:
    tick(lake, 2, c1=9)
    spend.run()
    tick(lake, 1, c1=4)
    done = spend.run()
    assert (done.rows_accepted, done.rows_rejected) == (0, 1)
    assert served(online, 1) == [9]


def test_chunks_cover_every_key_once(lake, spend, online, store) -> None:
    tick(lake, 0, **{f"c{n}": n for n in range(200)})
    plan = spend.plan(chunks=3)
    written = [spend.write(plan.interval, chunk) for chunk in plan.chunks]
    assert sum(w.accepted for w in written) == 200
    assert all(w.accepted > 30 for w in written)
    spend.verify(plan.interval, written)
    spend.commit(plan.interval)
    assert served(online, *range(200)) == list(range(200))


def test_a_large_interval_is_divided_and_says_the_same(lake, spend, online, store) -> None:
    tick(lake, 0, **{f"c{n}": n for n in range(200)})
    plan = spend.plan()
    (whole,) = [spend.write(plan.interval, chunk) for chunk in plan.chunks]
    small = online.model_copy(update={"materialize_values": 60 * len(SPEND.schema)})
    divided = Materializer(small, lake, Ledger.open(small, "test"), store, "test", SPEND)
    chunks = divided.plan().chunks
    assert [(c.index, c.of) for c in chunks] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    written = [divided.write(plan.interval, chunk) for chunk in chunks]
    assert add_digests(w.digest for w in written) == whole.digest
    divided.verify(plan.interval, written)


def test_a_sample_of_a_large_interval_is_read_back(lake, spend, store, monkeypatch) -> None:
    tick(lake, 0, **{f"c{n}": n for n in range(30_000)})
    asked: list[int] = []
    read = doctor.read_back
    monkeypatch.setattr(doctor, "read_back", lambda *given: (asked.append(given[-1].num_rows), read(*given))[1])
    spend.run()
    assert 700 < sum(asked) < 1_300


def test_a_run_killed_after_writing_is_finished_by_the_next(lake, spend, online, store) -> None:
    tick(lake, 0, c1=1)
    plan = spend.plan()
    spend.write(plan.interval, Chunk(0, 1))
    assert (epoch(store).committed, epoch(store).writing.interval) == (None, plan.interval)
    tick(lake, 1, c1=2)
    assert spend.run().id == plan.interval
    assert served(online, 1) == [1], "the unfinished interval first, as it was planned"
    spend.run()
    assert served(online, 1) == [2]


def test_a_crash_between_the_two_commits_is_healed_by_a_run_with_nothing_new(lake, spend, store, monkeypatch) -> None:
    tick(lake, 0, c1=1)

    interrupted(monkeypatch, EpochStore, "set_committed", spend.run)
    assert EpochStore(store, "test").read().views["spend"].committed is None
    assert spend.run() is None
    assert EpochStore(store, "test").read().views["spend"].committed.interval == 1


def test_an_interval_that_lost_keys_on_the_way_is_not_committed(lake, spend) -> None:
    tick(lake, 0, c1=1, c2=2)
    plan = spend.plan()
    written = spend.write(plan.interval, Chunk(0, 1))
    with pytest.raises(VerificationFailed, match="2 keys in the lake, 1 accepted"):
        spend.verify(plan.interval, [replace(written, accepted=1)])
    with pytest.raises(Transient, match="being written anew"):
        spend.commit(plan.interval)


def test_a_value_overwritten_in_the_store_before_verification_is_found(lake, spend, store) -> None:
    tick(lake, 0, c1=1)
    plan = spend.plan()
    written = spend.write(plan.interval, Chunk(0, 1))
    (key,) = [k for k in store.scan_iter() if not k.startswith(b"lockstep:")]
    field = next(f for f in store.hkeys(key) if not f.startswith(b"_"))
    store.hset(key, field, b"\x20\x07")
    with pytest.raises(VerificationFailed, match="first card=1"):
        spend.verify(plan.interval, [written])


def epoch(store: "redis.Redis") -> ViewEpoch:
    return EpochStore(store, "test").read().views.get("spend", ViewEpoch())


@pytest.fixture
def rows(lake, spend, store) -> dict[bytes, dict[bytes, bytes]]:
    """Three ticks are online, each by an interval of its own; this is what the store holds then."""
    for hour, counts in enumerate([{"c1": 1, "c2": 2}, {"c1": 5}, {"c3": 3}]):
        tick(lake, hour, **counts)
        spend.run()
    return contents(store)


def test_a_compaction_in_between_changes_nothing_online(lake, spend, store, rows, online) -> None:
    compact(lake.table("spend"))
    alone = spend.run()
    assert (alone.rows_accepted, alone.rows_rejected, alone.watermark) == (0, 0, T + timedelta(hours=2))
    assert contents(store) == rows
    tick(lake, 3, c1=8)
    compact(lake.table("spend"))
    tick(lake, 4, c2=9)
    done = spend.run()
    assert (done.rows_accepted, done.rows_rejected, done.watermark) == (2, 0, T + timedelta(hours=4))
    assert served(online, 1, 2, 3) == [8, 9, 3]


@pytest.mark.parametrize("named", [False, True], ids=["flushed", "flushed and named"])
def test_a_flushed_store_is_filled_again_by_a_run_with_nothing_new(spend, store, rows, caplog, named: bool) -> None:
    store.flushall()
    if named:  # the run that found out ended before it told the ledger
        EpochStore(store, "test").ensure_incarnation()
    done = spend.run()
    assert (done.mode, done.writes_from, done.rows_accepted) == (Mode.REPAIR, 0, 3)
    assert contents(store) == rows
    assert "lost writes of spend: all after snapshot sequence 0 is written again" in caplog.text
    assert spend.run() is None


def test_a_flushed_store_is_filled_again_by_the_next_interval(lake, spend, store, rows, online) -> None:
    store.flushall()
    tick(lake, 3, c2=7)
    done = spend.run()
    assert (done.mode, done.sequence_from, done.writes_from) == (Mode.INTERVAL, 3, 0)
    assert served(online, 1, 2, 3) == [5, 7, 3]
    assert epoch(store).committed.interval == done.id


@pytest.mark.parametrize("moment", ["planned", "written", "verified", "committed"])
def test_a_store_flushed_while_an_interval_is_written_has_it_all_in_the_end(
    lake, spend, store, rows, online, monkeypatch, moment: str
) -> None:
    tick(lake, 3, c2=7)
    plan = spend.plan()
    if moment == "planned":
        store.flushall()
    written = spend.write(plan.interval, plan.chunks[0])
    if moment == "written":
        store.flushall()
    if moment in {"planned", "written"}:
        with pytest.raises(Transient, match="interval 4 of spend was written to a store that was lost"):
            spend.verify(plan.interval, [written])
        assert spend.run().id == plan.interval
    else:
        spend.verify(plan.interval, [written])
    if moment == "verified":
        store.flushall()
        spend.commit(plan.interval)
    if moment == "committed":
        said = Ledger.commit_materialize
        monkeypatch.setattr(Ledger, "commit_materialize", lambda *given: (said(*given), store.flushall())[0])
        with pytest.raises(Transient, match="interval 4 of spend was written to a store that was lost"):
            spend.commit(plan.interval)
        assert epoch(store) == ViewEpoch()
        monkeypatch.undo()
        assert spend.run().mode is Mode.REPAIR
    assert served(online, 1, 2, 3) == [5, 7, 3]
    assert spend.run() is None


def test_what_came_after_an_older_copy_of_the_store_is_written_again(lake, spend, store, rows, online) -> None:
    older = copy_of(store)
    for hour, counts in ((3, {"c1": 8}), (4, {"c2": 9})):
        tick(lake, hour, **counts)
        spend.run()
    newer = contents(store)
    bring_back(store, older)
    done = spend.run()
    assert (done.mode, done.writes_from, done.rows_accepted) == (Mode.REPAIR, 3, 2)
    assert contents(store) == newer
    assert epoch(store).committed.interval == done.id


def test_a_server_that_was_restarted_while_an_interval_was_written_gets_it_again(
    lake, spend, store, monkeypatch
) -> None:
    tick(lake, 0, c1=1)
    plan = spend.plan()
    written = spend.write(plan.interval, plan.chunks[0])
    spend.verify(plan.interval, [written])
    held = {key: store.dump(key) for key in store.scan_iter(b"lockstep:*")}
    store.flushall()
    for key, value in held.items():  # the epoch hash reached the disk, the row did not
        store.restore(key, 0, value)
    tell_no_run(monkeypatch)
    spend.commit(plan.interval)
    assert len(contents(store)) == 1


def test_a_commit_that_was_not_told_is_not_believed_of_another_run_of_the_server(
    lake, spend, store, monkeypatch
) -> None:
    tick(lake, 0, c1=1)
    with monkeypatch.context() as crash:
        crash.setattr(EpochStore, "set_committed", lambda *_: False)
        with pytest.raises(Transient):
            spend.run()
    tell_no_run(monkeypatch)
    done = spend.run()
    assert (done.mode, done.writes_from) == (Mode.REPAIR, 0)


def test_a_repair_mends_what_nobody_noticed(lake, spend, store, rows) -> None:
    first, second, _ = sorted(rows)
    store.delete(first)
    store.hset(second, next(f for f in rows[second] if not f.startswith(b"_")), b"\x20\x07")
    found = spend.diagnose()
    assert (found.keys, found.differing) == (3, 2)
    (problem,) = found.problems
    assert re.fullmatch(r"2 of 3 keys are not as in the lake, first card=\d: `lockstep repair spend`", problem)
    assert spend.run() is None
    done = spend.run(everything=True)
    assert (done.mode, done.rows_accepted, done.rows_rejected) == (Mode.REPAIR, 3, 0)
    assert contents(store) == rows
    assert spend.diagnose() == Diagnosis("spend", 3, 0, ())


def test_a_repair_that_a_restored_copy_has_not_seen_is_done_again(
    lake, spend, store, rows, online, monkeypatch
) -> None:
    (key,) = EntityKeys("test", VIEW.join_keys).encode({"card": [1]})
    store.hset(key, next(f for f in rows[key] if not f.startswith(b"_")), b"\x20\x07")
    older = copy_of(store)
    spend.run(everything=True)
    assert contents(store) == rows
    bring_back(store, older)
    tell_no_run(monkeypatch)
    assert served(online, 1, 2, 3) == [7, 2, 3]
    tick(lake, 3, c3=8)
    done = spend.run()
    assert (done.mode, done.scope) == (Mode.INTERVAL, Scope.WHOLE)
    assert served(online, 1, 2, 3) == [5, 2, 8]


def test_a_diagnosis_names_what_is_unfinished_lost_or_foreign(lake, spend, store) -> None:
    assert spend.diagnose().problems == ("nothing is online: `lockstep materialize spend`",)
    tick(lake, 0, c1=1)
    spend.run()
    tick(lake, 1, c1=2)
    spend.plan()
    (unfinished,) = spend.diagnose().problems
    assert unfinished.startswith("interval 2 is writing since ")
    spend.run()
    store.hset("lockstep:epoch:test", "incarnation", "f" * 32)
    (foreign,) = spend.diagnose().problems
    assert foreign.startswith("it is another store than the ledger's")
    store.flushall()
    assert [p.partition(":")[0] for p in spend.diagnose().problems] == [
        "the store is empty, or was flushed",
        "1 of 1 keys are not as in the lake, first card=1",
    ]
    EpochStore(store, "test").ensure_incarnation()
    spend.run()
    assert spend.diagnose().problems == ()
    EpochStore(store, "test").restore("spend", ViewEpoch())
    (behind,) = spend.diagnose().problems
    assert behind.startswith("the store shows interval none, the ledger committed 3")


@pytest.fixture
def other(online, lake, store) -> Materializer:
    """Another view of the same store."""
    view = replace(SPEND, name="other")
    lake.ensure_table("other", view.schema, "event_timestamp")
    at = {TICK: str(to_micros(T))}
    row = {"card": 1, "nb_1d": 1, "event_timestamp": T, "created_timestamp": T}
    lake.append("other", pa.Table.from_pylist([row], view.schema), at)
    return Materializer(online, lake, Ledger.open(online, "test"), store, "test", view)


@pytest.mark.parametrize("moment", ["_whole.basis", "_claim"])
def test_a_store_that_another_view_named_anew_under_a_plan_is_not_taken_for_the_old_one(
    lake, spend, other, store, rows, online, monkeypatch, moment: str
) -> None:
    tick(lake, 3, c2=7)
    step = attrgetter(moment)(spend)

    def overtaken(*given: object, **more: object) -> object:
        found = step(*given, **more)
        store.flushall()
        other.run()
        return found

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(step.__self__, step.__name__, overtaken)
        with pytest.raises(Transient, match="flushed, restarted or failed over"):
            spend.run()
    spend.run()
    assert served(online, 1, 2, 3) == [5, 7, 3]
    assert spend.diagnose().problems == other.diagnose().problems == ()


def test_a_commit_that_is_tried_again_after_a_flush_says_nothing_to_the_new_store(
    lake, spend, store, rows, online
) -> None:
    tick(lake, 3, c2=7)
    done = spend.run()
    store.flushall()
    tick(lake, 4, c3=9)
    spend.plan()
    with pytest.raises(Transient, match="flushed"):
        spend.commit(done.id)
    assert epoch(store).committed is None
    spend.run()
    assert served(online, 1, 2, 3) == [5, 7, 9]


def test_a_chunk_that_was_written_before_another_run_planned_anew_is_not_counted(
    lake, spend, store, rows, monkeypatch
) -> None:
    tick(lake, 3, c1=7, c2=8)
    plan = spend.plan(chunks=2)
    early = spend.write(plan.interval, plan.chunks[0])
    tell_no_run(monkeypatch)
    spend.plan(chunks=2)
    late = spend.write(plan.interval, plan.chunks[1])
    with pytest.raises(Transient, match="interval 4 of spend was written to a store that was lost"):
        spend.verify(plan.interval, [early, late])


def test_a_repair_that_is_not_finished_is_taken_up_and_there_is_one(lake, spend, store, rows, online) -> None:
    store.flushall()
    first = spend.plan()
    assert spend.plan().interval == first.interval
    store.flushall()
    assert spend.run().id == first.interval
    assert contents(store) == rows


def test_a_repair_gives_way_to_an_interval_that_was_planned_meanwhile(
    online, lake, spend, store, rows, monkeypatch
) -> None:
    """Else the interval would have the smaller number, and the store would be told the older state last."""
    store.flushall()
    plan = Ledger.plan_materialize
    second = Materializer(online, lake, Ledger.open(online, "test"), store, "test", SPEND)

    def overtaken(*given: Any, **more: Any) -> Any:
        monkeypatch.undo()
        tick(lake, 3, c2=7)
        second.plan()
        return plan(*given, **more)

    monkeypatch.setattr(Ledger, "plan_materialize", overtaken)
    done = spend.run()
    assert (done.mode, done.id, done.writes_from) == (Mode.INTERVAL, 4, 0)
    assert served(online, 1, 2, 3) == [5, 7, 3]


@pytest.mark.parametrize("committing", [False, True], ids=["before the commit", "during the commit"])
def test_what_a_restarted_server_lost_is_written_again(
    online, server, lake, spend, store, monkeypatch, committing: bool
) -> None:
    tick(lake, 0, c1=1, c2=2)
    spend.run()
    tick(lake, 1, c1=5)
    plan = spend.plan()
    store.save()  # the epoch hash says `writing`; what follows is not on the disk
    spend.verify(plan.interval, [spend.write(plan.interval, plan.chunks[0])])

    def restart() -> None:
        server.stop()
        again.start()
        assert again.port == online.redis_port

    again = LocalRedis(online.home, online.redis_port)
    try:
        if committing:
            said = Ledger.commit_materialize
            monkeypatch.setattr(Ledger, "commit_materialize", lambda *given: (said(*given), restart())[0])
            with pytest.raises(Transient):
                spend.commit(plan.interval)
            monkeypatch.undo()
            assert served(online, 1, 2) == [1, 2]
            assert spend.run().mode is Mode.REPAIR
        else:
            restart()
            assert served(online, 1, 2) == [1, 2]
            spend.commit(plan.interval)
        assert served(online, 1, 2) == [5, 2]
        assert spend.diagnose().problems == ()
    finally:
        again.stop()


def test_a_store_of_another_ledger_is_refused(lake, spend, store, rows) -> None:
    store.hset("lockstep:epoch:test", "incarnation", "f" * 32)
    with pytest.raises(LostStore, match="not the one that was written to"):
        spend.run()


def test_a_store_that_loses_every_write_is_given_up(lake, spend, store, monkeypatch) -> None:
    tick(lake, 0, c1=1)
    plan = spend.plan()
    spend.verify(plan.interval, [spend.write(plan.interval, plan.chunks[0])])
    runs = iter(range(100))
    monkeypatch.setattr(wholeness, "place_of", lambda _, name: Place(name, f"run {next(runs)}", ""))
    with pytest.raises(Transient, match="interval 1 of spend was written to a store that was lost"):
        spend.commit(plan.interval)


def test_a_fresh_ledger_does_not_adopt_a_used_store(online, lake, spend, store) -> None:
    tick(lake, 0, c1=1)
    spend.run()
    lost = online.model_copy(update={"ledger_url": f"sqlite:///{online.home}/another.db"})
    fresh = Materializer(lost, lake, Ledger.open(lost, "test"), store, "test", SPEND)
    with pytest.raises(LostStore, match="already holds spend of test"):
        fresh.run()


def test_a_view_that_was_never_computed_is_named(spend) -> None:
    with pytest.raises(BadInput, match="spend was never computed"):
        spend.run()

"""What ledger and epoch hash say after a fault, beside the rows: an unbroken run leaves the same marks."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from lockstep.lake import Lake
from lockstep.local.redis import LocalRedis
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode
from lockstep.online.epoch import EpochStore, Mark
from lockstep.online.store import connect
from lockstep.settings import Settings
from tests.faults.wire import Wire, materialize, started
from tests.interrupted import interrupted
from tests.materialize.spend import SPEND, contents, served, tick

CARDS = 400
BYTES = 100 * CARDS  # less than what the last interval sends


@pytest.fixture
def peer(settings: Settings, server: LocalRedis) -> Iterator[Settings]:
    """A store and a ledger of their own on the same lake, which nothing happens to."""
    with LocalRedis(settings.home / "peer") as running:
        ledger_url = f"sqlite:///{settings.home}/peer.db"
        yield running.settings(settings).model_copy(update={"ledger_url": ledger_url})


def marks(store: "redis.Redis") -> tuple[tuple[int, int, int] | None, Mark | None]:
    """Return what is committed, but for the interval's number, which a repair has one of too, and what is being written."""
    epoch = EpochStore(store, "test").read().views["spend"]
    done = epoch.committed
    return done and (done.snapshot_id, done.sequence, done.watermark_us), epoch.writing


def assert_whole(spend: Materializer, store: "redis.Redis", peer: Settings, seed: int) -> None:
    """Run until nothing is new, and compare rows and marks with those of an unbroken run."""
    while spend.run() is not None:
        pass
    materialize(peer)
    with connect(peer) as unbroken:
        assert contents(store) == contents(unbroken), f"seed {seed}"
        assert marks(store) == marks(unbroken), f"seed {seed}"
    assert spend.diagnose().problems == (), f"seed {seed}"


def append(lake: Lake, chosen: random.Random, hours: Sequence[int]) -> None:
    """Append a tick of each of these hours."""
    for hour in hours:
        cards = chosen.sample(range(CARDS), CARDS * 3 // 4)
        tick(lake, hour, **{f"c{card}": chosen.randrange(1 << 40) for card in cards})


@pytest.mark.parametrize("seed", range(8))
def test_a_server_that_comes_back_from_a_copy_made_while_a_writer_was_anywhere(
    lake, spend, store, server, online, peer, seed: int
) -> None:
    """The copy may say `writing N`, or `committed N` of an earlier N; the ledger has committed all of it since."""
    chosen = random.Random(seed)
    hours = chosen.sample(range(6), 3)
    append(lake, chosen, hours[:1])
    spend.run()
    append(lake, chosen, hours[1:])
    with Wire(server.port, chosen.choice([1, 2_000, chosen.randrange(BYTES)]), lambda _: store.save()) as wire:
        materialize(online.model_copy(update={"redis_port": wire.port}), chunks=3)
        assert wire.befell, f"seed {seed}"
    said = marks(store)
    with restarted(server, online):
        assert marks(store) != said, f"seed {seed}"
        assert_whole(spend, store, peer, seed)


@pytest.mark.parametrize("seed", range(6))
def test_three_runs_at_once_on_a_store_that_was_flushed(lake, spend, store, online, peer, seed: int) -> None:
    chosen = random.Random(seed)
    hours = chosen.sample(range(6), 3)
    append(lake, chosen, hours[:2])
    spend.run()
    append(lake, chosen, hours[2 : 2 + seed % 2])  # with nothing new they race for a repair, else for an interval
    store.flushall()
    runs: list[Any] = [started(online, chosen.randint(1, 4)) for _ in range(3)]
    for run in runs:
        run.join()
    assert_whole(spend, store, peer, seed)


def test_a_crash_between_the_two_commits_leaves_no_mark_of_writing(lake, spend, store, peer, monkeypatch) -> None:
    tick(lake, 0, c1=1)

    interrupted(monkeypatch, EpochStore, "set_committed", spend.run)
    assert_whole(spend, store, peer, 0)


def test_a_repair_gives_way_to_an_interval_that_was_planned_before_it(
    lake, spend, store, server, online, peer, monkeypatch
) -> None:
    """Rows of the ledger are in the order of the table's states: else the store would be told the older one."""
    for hour, counts in enumerate([{"c1": 1, "c2": 2}, {"c1": 5}]):
        tick(lake, hour, **counts)
        spend.run()
    other = Materializer(online, lake, Ledger.open(online, "test"), store, "test", SPEND)
    plan, plans = Ledger.plan_materialize, []

    def overtaken(*given: Any, **more: Any) -> Any:
        monkeypatch.undo()
        tick(lake, 2, c2=7)
        plans.append(other.plan())
        return plan(*given, **more)

    store.save()
    monkeypatch.setattr(Ledger, "plan_materialize", overtaken)
    done = spend.run(everything=True)
    assert (done.id, done.mode, done.writes_from) == (plans[0].interval, Mode.INTERVAL, 0)
    other.verify(plans[0].interval, [other.write(plans[0].interval, chunk) for chunk in plans[0].chunks])
    other.commit(plans[0].interval)
    assert served(online, 1, 2) == [5, 7]
    with restarted(server, online):
        assert served(online, 1, 2) == [5, 2]
        assert_whole(spend, store, peer, 0)
        assert served(online, 1, 2) == [5, 7]


def test_a_diagnosis_says_that_the_last_committed_snapshot_has_expired(lake, spend) -> None:
    tick(lake, 0, c1=1)
    spend.run()
    tick(lake, 1, c2=1)
    lake.table("spend").maintenance.expire_snapshots().older_than(datetime(2100, 1, 1, tzinfo=UTC)).commit()
    (problem,) = spend.diagnose().problems
    assert "the snapshot of interval 1 has expired, so nothing can be compared" in problem
    spend.run()
    assert spend.diagnose().problems == ()


def restarted(server: LocalRedis, online: Settings) -> ExitStack:
    """Start the server again on its port, with what it saved last."""
    server.stop()
    again = ExitStack()
    assert again.enter_context(LocalRedis(online.home, online.redis_port)).port == online.redis_port
    return again

"""One view's life on each kind of store, with real servers: what is online in the end is the same to the last byte."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from redis.exceptions import NoPermissionError

from lockstep.erasure import Erasure, read_key
from lockstep.errors import LostStore, Transient
from lockstep.lake import Lake
from lockstep.local.redis import LocalRedis
from lockstep.materialize.doctor import Diagnosis
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode
from lockstep.online.cluster import primaries
from lockstep.online.copies import copies_of
from lockstep.online.epoch import Epochs, EpochStore
from lockstep.online.footprint import footprints
from lockstep.online.reader import Reading, ViewRows, read_online
from lockstep.online.store import (
    OF_A_CLUSTER,
    OF_THE_LOG,
    OF_THE_STORE,
    Store,
    connect,
    connect_async,
    meaning,
)
from lockstep.online.sweep import sweep
from lockstep.online.writer import read_back, write_rows
from lockstep.serving.drain import drain
from lockstep.serving.log import ServedLog
from lockstep.serving.log_rows import Served
from lockstep.serving.request import Request
from lockstep.settings import Settings
from lockstep.views import load_use_case
from tests.kinds import KINDS, Clustered, Watched
from tests.materialize.spend import CONTRACT, SPEND, TOGETHER, VIEW, contents, served, tick

CARDS = {f"c{card}": card for card in range(300)}


@contextmanager
def running(kind: str, home: Path) -> Iterator[Any]:
    if kind == "standalone":
        with LocalRedis(home) as server:
            yield server
    elif kind == "sentinel":
        with Watched(home).running() as watched:
            yield watched
    else:
        with Clustered(home).running() as cluster:
            yield cluster


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    with LocalRedis(tmp_path_factory.mktemp("peer")) as started:
        yield started


@pytest.fixture
def store(online: Settings) -> Iterator[Store]:
    with connect(online) as client:
        flush(client)
        yield client


@pytest.fixture
def alike(settings: Settings, lake: Lake, peer: LocalRedis) -> Iterator[Any]:
    """Whether a store holds what one that is filled from the lake, without a cluster, does."""
    there = peer.settings(settings).model_copy(update={"ledger_url": f"sqlite:///{settings.home}/peer.db"})
    with connect(there) as client:
        client.flushall()

        def alike(store: Store) -> bool:
            Materializer(there, lake, Ledger.open(there, "test"), client, "test", SPEND).run()
            return rows_of(store) == contents(client) != {}

        yield alike


def flush(store: Store) -> None:
    for primary in primaries(store):
        primary.client.flushall()


def rows_of(store: Store) -> dict[bytes, dict[bytes, bytes]]:
    return {key: value for primary in primaries(store) for key, value in contents(primary.client).items()}


def test_a_views_life_ends_with_the_same_bytes_everywhere(store, lake, spend, online, alike) -> None:
    tick(lake, 1, **CARDS)
    assert spend.run().rows_accepted == 300
    assert min(len(contents(primary.client)) for primary in primaries(store)) > 50
    tick(lake, 0, c1=100, c2=100)  # late
    tick(lake, 2, c3=7, c400=4)
    done = spend.run()
    assert (done.rows_accepted, done.rows_rejected) == (2, 2)
    assert spend.run() is None
    assert served(online, 1, 2, 3, 400, 401) == [1, 2, 7, 4, None]
    assert spend.diagnose() == Diagnosis("spend", 301, 0, ())
    lake.table("spend").delete("card > 1 and card < 100")
    assert spend.diagnose().leftovers == 0, "it is the next run that takes them back"
    spend.run()
    assert served(online, 1, 2, 99, 100) == [1, None, None, 100]
    assert spend.diagnose().problems == ()
    assert alike(store)

    use_case = replace(load_use_case("feature_repo"), project="test", entities=(SPEND.entity,), views=(SPEND,))
    (found,) = footprints(online, use_case, lake, store)
    used = [p.client.memory_usage(key, samples=0) for p in primaries(store) for key in contents(p.client)]
    assert (found.keys, found.whole.found, found.whole.total) == (203, 203, sum(used))

    swept = sweep(store, "test", [], [("spend", ("nb_1d",))])
    assert (swept.hashes, swept.fields, swept.left) == (203, 609, 0)
    assert rows_of(store) == {}
    assert EpochStore(store, "test").read().views == {}


def test_rows_that_share_a_slot_are_each_written(store, lake, spend, online, alike) -> None:
    cards = {**CARDS, **{f"c{card + step}": card for card in TOGETHER for step in range(8)}}
    tick(lake, 1, **cards)
    done = spend.run()
    assert (done.rows_accepted, done.rows_rejected) == (len(cards), 0)
    tick(lake, 0, **{f"c{card}": 1 for card in TOGETHER[::2]})  # late
    tick(lake, 2, **{f"c{card}": card + 1 for card in TOGETHER[1:]})
    done = spend.run()
    assert (done.rows_accepted, done.rows_rejected) == (3, 1)
    assert served(online, *TOGETHER) == [TOGETHER[0], *(card + 1 for card in TOGETHER[1:])]
    assert spend.diagnose().problems == ()
    assert alike(store)


def test_two_runs_that_each_find_the_store_flushed_end_as_one(store, lake, spend, online, monkeypatch) -> None:
    tick(lake, 0, **CARDS)
    spend.run()
    flush(store)
    epochs = spend._whole.epochs
    name = epochs.ensure_incarnation
    with connect(online) as client:
        another = Materializer(online, lake, Ledger.open(online, "test"), client, "test", SPEND)

        def overtaken() -> str:
            named = name()
            flush(store)
            another.plan()
            return named

        monkeypatch.setattr(epochs, "ensure_incarnation", overtaken)
        with pytest.raises(Transient, match="another run has just found out"):
            spend.run()
    monkeypatch.undo()
    while spend.run() is not None:
        pass
    assert served(online, 7, 300) == [7, None]
    assert spend.diagnose().problems == ()


def test_a_first_run_that_another_comes_before_is_told_so(store, lake, spend, online, monkeypatch) -> None:
    tick(lake, 0, **CARDS)
    read = spend._whole.epochs.read
    with connect(online) as client:
        another = Materializer(online, lake, Ledger.open(online, "test"), client, "test", SPEND)
        monkeypatch.setattr(spend._whole.epochs, "read", lambda: another.plan() and read())
        with pytest.raises(Transient, match="another run has just found out"):
            spend.run()
    monkeypatch.undo()
    assert spend.run().rows_accepted == 300


def test_what_is_read_says_which_interval_it_is_of(store, lake, spend, online) -> None:
    tick(lake, 0, **CARDS)
    done = spend.run()
    tick(lake, 1, c5=50)
    planned = spend.plan()
    for cards in (list(range(300)), [7], []):
        reading = read_online(online, CONTRACT, {"card": cards}, [0] * len(cards))
        assert reading.views["spend"].values["nb_1d"] == cards
        epoch = reading.before.views["spend"]
        assert reading.before == reading.after
        assert (epoch.committed.interval, epoch.writing.interval) == (done.id, planned.interval)


def test_one_primary_that_is_flushed_gets_everything_again(store, lake, spend, online, alike, caplog) -> None:
    for hour in range(3):
        tick(lake, hour, **{card: value + hour for card, value in CARDS.items()})
        spend.run()
    primaries(store)[0].client.flushall()
    (lost, *_) = spend.diagnose().problems
    assert "flushed" in lost
    done = spend.run()
    assert (done.mode, done.writes_from) == (Mode.REPAIR, 0)
    assert "lost writes of spend: all after snapshot sequence 0 is written again" in caplog.text
    assert alike(store)
    assert spend.run() is None
    assert spend.diagnose().problems == ()


@pytest.mark.parametrize("moment", ["written", "verified"])
def test_one_primary_that_is_flushed_on_the_way_has_it_all_in_the_end(store, lake, spend, alike, moment: str) -> None:
    tick(lake, 0, **CARDS)
    spend.run()
    tick(lake, 1, c1=5, c2=6, c3=7)
    plan = spend.plan()
    written = spend.write(plan.interval, plan.chunks[0])
    if moment == "verified":
        spend.verify(plan.interval, [written])
    primaries(store)[-1].client.flushall()
    if moment == "verified":
        spend.commit(plan.interval)
    else:
        with pytest.raises(Transient, match="was written to a store that was lost"):
            spend.verify(plan.interval, [written])
    while spend.run() is not None:
        pass
    assert alike(store)
    assert spend.diagnose().problems == ()


def test_a_commit_that_only_some_primaries_heard_of_is_told_to_the_rest(store, lake, spend) -> None:
    tick(lake, 0, **CARDS)
    plan = spend.plan()
    untold = [copy.field("view:spend") for copy in copies_of(store, "test")]
    spend.verify(plan.interval, [spend.write(plan.interval, plan.chunks[0])])
    done = spend.commit(plan.interval)
    copies_of(store, "test")[-1].set("view:spend", untold[-1])
    epoch = EpochStore(store, "test").read().views["spend"]
    assert (epoch.committed, epoch.writing.interval) == (None, done.id), "the oldest, and what may be there"
    assert spend.run() is None
    assert EpochStore(store, "test").read().views["spend"].committed.interval == done.id


def test_a_copy_that_names_an_older_interval_has_lost_what_came_after(store, lake, spend, alike) -> None:
    tick(lake, 0, **CARDS)
    spend.run()
    copy = copies_of(store, "test")[0]
    client = copy.primary.client
    before = {key: client.dump(key) for key in client.scan_iter()}
    for hour in (1, 2):
        tick(lake, hour, **{card: value + hour for card, value in CARDS.items()})
        spend.run()
    client.flushall()
    for key, value in before.items():  # as from an older file
        client.restore(key, 0, value)
    done = spend.run()
    assert (done.mode, done.writes_from) == (Mode.REPAIR, 1)
    assert alike(store)


def test_a_store_of_another_ledger_is_refused(store, lake, spend) -> None:
    tick(lake, 0, **CARDS)
    spend.run()
    for copy in copies_of(store, "test"):
        copy.set("incarnation", b"f" * 32)
    with pytest.raises(LostStore, match="not the one that was written to"):
        spend.run()


@contextmanager
def limited(store: Store, online: Settings, *commands: str) -> Iterator[Settings]:
    """Settings with a user who may do these alone."""
    rules = ["reset", "on", ">secret", "~*", *(f"+{command}" for command in commands)]
    for primary in primaries(store):
        primary.client.execute_command("ACL", "SETUSER", "lockstep", *rules)
    try:
        yield online.model_copy(update={"redis_username": "lockstep", "redis_password": SecretStr("secret")})
    finally:
        for primary in primaries(store):
            primary.client.execute_command("ACL", "DELUSER", "lockstep")


def of_kind(server: Any) -> Sequence[str]:
    return OF_A_CLUSTER if isinstance(server, Clustered) else ()


def test_a_user_with_the_least_permissions_may_do_all_of_it(store, lake, online, server) -> None:
    with limited(store, online, *OF_THE_STORE, *of_kind(server)) as settings, connect(settings) as client:
        spend = Materializer(settings, lake, Ledger.open(settings, "test"), client, "test", SPEND)
        tick(lake, 0, **CARDS)
        spend.run()
        lake.table("spend").delete("card = 2")
        spend.run()
        assert served(settings, 1, 2) == [1, None]
        assert spend.diagnose().problems == ()
        assert sweep(client, "test", [], [("spend", ("nb_1d",))]).hashes == 299


def test_a_user_with_the_least_permissions_for_the_log_may_send_drain_and_erase(store, lake, online, server) -> None:
    use_case = replace(load_use_case("feature_repo"), project="test", entities=(SPEND.entity,), views=(SPEND,))
    key = read_key(use_case, "card", "7")
    # where the log has a Redis of its own, its user needs no more than that
    with limited(store, online, *OF_THE_LOG, *of_kind(server)) as settings, connect(settings) as client:
        assert send(settings) == 1
        assert drain(lake, client, "test").rows == 1
    with limited(store, online, *OF_THE_STORE, *OF_THE_LOG, *of_kind(server)) as settings, connect(settings) as client:
        assert send(settings) == 1
        late = lambda said: send(settings) if "drained" in said else None  # noqa: E731
        ledger = Ledger.open(settings, "test")
        receipt = Erasure(settings, use_case, lake, ledger, client, late).erase(key)
        assert (receipt.outcome.tables["served_log"].rows, receipt.outcome.stream_entries) == (2, 1)


def test_a_refusal_for_want_of_permissions_lists_them_all() -> None:
    hint = meaning(NoPermissionError("no", status_code="NOPERM")).hint or ""
    for command in (*OF_THE_STORE, *OF_A_CLUSTER, *OF_THE_LOG):
        assert command.upper().replace("|", " ") in hint


def test_what_was_served_is_logged_and_drained(store, lake, online) -> None:
    assert send(online) == 1
    assert drain(lake, store, "test").rows == 1


def send(settings: Settings) -> int:
    """Serve one row; return how many were sent."""

    async def run() -> int:
        client = connect_async(settings)
        try:
            log = ServedLog(client, "test", "m")
            log.offer(answered())
            await log.close()
            return log.sent
        finally:
            await client.aclose()

    return asyncio.run(run())


def answered() -> Served:
    epochs, rows = Epochs("i", {}), ViewRows(["present"], [1], [1], {"nb_1d": [3]})
    request = Request("r", [1], {"card": [7]}, [{}])
    return Served(
        request, 2, Reading(epochs, epochs, {"spend": rows}), np.ones((1, 1)), [0.5], [[]], "c", shadow=False
    )


def test_rows_are_written_in_batches_and_read_back(store, lake) -> None:
    tick(lake, 0, **{f"c{n}": n for n in range(2_000)})
    rows = lake.table("spend").scan().to_arrow().select(SPEND.schema.names).cast(SPEND.schema)
    told: list[int] = []
    done = write_rows(store, "test", VIEW, rows, progress=told.append, batch_rows=150)
    assert (done.accepted, done.rejected, sum(told)) == (2_000, 0, 2_000)
    assert read_back(store, "test", VIEW, rows) == []
    victim = next(iter(rows_of(store)))
    store.delete(victim)
    assert len(read_back(store, "test", VIEW, rows)) == 1

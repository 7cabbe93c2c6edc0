"""A primary that is killed on the way and whose replica lacks the last writes, slots that move under a run: a rerun ends whole.

As in test_store_faults.py the store is compared byte for byte with one that an unbroken run filled.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from lockstep.errors import LockstepError, Transient
from lockstep.local.redis import LocalRedis
from lockstep.materialize.ledger_rows import State
from lockstep.online.reader import read_online
from lockstep.online.store import connect
from lockstep.settings import Settings
from tests.faults.test_store_faults import BYTES, Case
from tests.faults.wire import Wire, materialize, started
from tests.kinds import SERVICE, Clustered, Server, Watched, until
from tests.materialize.spend import CONTRACT

SEEDS = range(3)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    with LocalRedis(tmp_path_factory.mktemp("peer")) as started:
        yield started


def leave_behind(primary: Server, replica: Server) -> None:
    """From here on nothing reaches the replica: what the primary accepts is lost with it."""
    replica.client.config_set("masterauth", "nobody's")
    primary.client.client_kill_filter(_type="slave")
    until(lambda: primary.client.info("replication")["connected_slaves"] == 0, "a replica left behind")


def caught_up(primary: Server, replica: Server) -> None:
    primary.client.wait(1, 5_000)
    until(lambda: replica.client.dbsize() == primary.client.dbsize(), "a replica that has it all")


def after(seed: int, share: float) -> int:
    """Return after how many of a server's bytes it happens."""
    return random.Random(seed).randrange(1, int(BYTES * share))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_primary_of_a_cluster_that_is_killed_and_its_replica_promoted_without_the_last_writes(
    tmp_path: Path, settings: Settings, peer: LocalRedis, seed: int
) -> None:
    cluster = Clustered(tmp_path / "cluster", replicas=1)
    first, replica = cluster.primaries[0], cluster.replicas[0]
    befallen = threading.Event()
    with Wire(first.port) as wire, ExitStack() as stack:
        first.options["cluster-announce-port"] = str(wire.port)
        first.options["cluster-announce-bus-port"] = str(first.port + 10_000)
        stack.enter_context(cluster.running())
        with Case(settings, cluster, peer) as case:
            caught_up(first, replica)
            leave_behind(first, replica)
            wire.befall_after(after(seed, 0.25), lambda _: (first.kill(), befallen.set()))
            with pytest.raises(Transient):
                materialize(case.settings, chunks=2)
            assert befallen.wait(10)
            until(lambda: replica.client.role()[0] == b"master", "a promotion")
            until(lambda: cluster.primaries[1].client.cluster("INFO")["cluster_state"] == "ok", "the cluster")
            case.store.close()
            case.store = connect(case.settings)
            assert case.states & {State.WRITING, State.VERIFIED}
            case.assert_whole()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_primary_behind_sentinel_that_is_killed_and_its_replica_promoted_without_the_last_writes(
    tmp_path: Path, settings: Settings, peer: LocalRedis, seed: int
) -> None:
    befallen = threading.Event()
    with Watched(tmp_path / "watched").running() as watched, Case(settings, watched, peer) as case:
        first, replica = watched.primary, watched.replica
        caught_up(first, replica)
        leave_behind(first, replica)

        def kill() -> None:
            random.seed(seed)
            until(lambda: "writing" in {s.value for s in case.states}, "a run on its way")
            time.sleep(random.uniform(0, 0.15))
            first.kill()
            befallen.set()

        killer = threading.Thread(target=kill)
        killer.start()
        with suppress(Transient):  # it may have ended before
            materialize(case.settings, chunks=2)
        killer.join()
        until(lambda: replica.client.role()[0] == b"master", "a promotion")
        until(lambda: case.store.ping() and case.store.info()["tcp_port"] == replica.port, "the Sentinels' word")
        case.assert_whole()


@pytest.mark.parametrize("seed", SEEDS)
def test_slots_that_are_handed_to_and_fro_under_a_run(
    tmp_path: Path, settings: Settings, peer: LocalRedis, seed: int
) -> None:
    cluster = Clustered(tmp_path / "cluster")
    with cluster.running(), Case(settings, cluster, peer) as case:
        one, other, third = cluster.primaries
        stop = threading.Event()

        def hand_over() -> None:
            chance = random.Random(seed)
            while not stop.is_set():
                slots = sorted(chance.sample(range(5_000), 30))
                for source, target in ((one, other), (other, third), (third, one)):
                    cluster.move(slots, source, target)

        mover = threading.Thread(target=hand_over)
        mover.start()
        try:
            for _ in range(4):
                with suppress(LockstepError):
                    materialize(case.settings, chunks=2)
        finally:
            stop.set()
            mover.join()
        cluster.agree()
        case.assert_whole()


def test_a_writer_that_is_killed_is_followed_by_one_that_ends_whole(
    tmp_path: Path, settings: Settings, peer: LocalRedis
) -> None:
    with Clustered(tmp_path / "cluster").running() as cluster, Case(settings, cluster, peer) as case:
        writer = started(case.settings, chunks=3)
        until(lambda: State.WRITING in case.states, "a run on its way")
        writer.kill()
        writer.join()
        case.assert_whole()


def test_a_reader_goes_on_with_the_replica(tmp_path: Path, settings: Settings, peer: LocalRedis) -> None:
    with Clustered(tmp_path / "cluster", replicas=1).running() as cluster, Case(settings, cluster, peer) as case:
        case.assert_whole()
        first, replica = cluster.primaries[0], cluster.replicas[0]
        caught_up(first, replica)
        cards = list(range(50, 1_000))

        def read() -> list[int | None]:
            return (
                read_online(case.settings, CONTRACT, {"card": cards}, [0] * len(cards)).views["spend"].values["nb_1d"]
            )

        before = read()
        first.kill()
        with suppress(Transient):
            assert read() == before
        until(lambda: replica.client.role()[0] == b"master", "a promotion")
        until(lambda: cluster.primaries[1].client.cluster("INFO")["cluster_state"] == "ok", "the cluster")
        assert read() == before
        assert None not in before


def test_the_sentinels_name_the_new_primary_to_a_client_that_knew_the_old_one(
    tmp_path: Path, settings: Settings
) -> None:
    with Watched(tmp_path / "watched").running() as watched, connect(watched.settings(settings)) as client:
        client.set("k", "v")
        watched.primary.client.wait(1, 5_000)
        watched.sentinels[0].client.execute_command("SENTINEL FAILOVER", SERVICE)
        until(lambda: client.info()["tcp_port"] == watched.replica.port and client.get("k") == b"v", "the other one")
        client.set("k", "w")
        assert watched.replica.client.get("k") == b"w"

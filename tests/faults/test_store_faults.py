"""Whatever befalls the writer, the wire, the server, the lake or the ledger: a rerun ends at what an unbroken run ends at.

Each test runs over several seeds; a seed says when it happens. The store is compared byte for byte with one that an unbroken run
filled, and a diagnosis must find nothing.
"""

import random
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pytest
import redis

from lockstep.clock import to_micros
from lockstep.errors import BadInput, LockstepError, Terminal, Transient
from lockstep.lake import Lake
from lockstep.lake.snapshots import TICK
from lockstep.local.redis import LocalRedis
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import State
from lockstep.online.store import connect
from lockstep.online.writer import write_rows
from lockstep.settings import Settings
from tests.faults.wire import PROCESSES, Wire, materialize, started
from tests.lake.compaction import compact
from tests.materialize.spend import SPEND, VIEW, T, contents

KEYS = 2_000
BYTES = 250 * KEYS  # less than what an interval of so many keys sends
SEEDS = range(3)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalRedis, LocalRedis]]:
    with LocalRedis(tmp_path_factory.mktemp("one")) as one, LocalRedis(tmp_path_factory.mktemp("two")) as two:
        yield one, two


@pytest.fixture
def case(settings: Settings, servers: tuple[LocalRedis, LocalRedis]) -> Iterator["Case"]:
    with Case(settings, *servers) as made:
        yield made


class Case:
    """A view of which one interval is online, and a second one that adds, corrects and deletes is to come."""

    def __init__(self, settings: Settings, server: LocalRedis, peer: LocalRedis) -> None:
        self.server = server
        self.settings = server.settings(settings).model_copy(update={"materialize_values": KEYS * len(SPEND.schema)})
        self.peer_settings = peer.settings(settings).model_copy(
            update={"ledger_url": f"sqlite:///{settings.home}/peer.db"}
        )
        self.lake = Lake.open(self.settings, "test")
        self.store = connect(self.settings)
        self.peer = connect(self.peer_settings)

    def __enter__(self) -> Self:
        self.store.flushall()
        self.peer.flushall()
        self.lake.ensure_table("spend", SPEND.schema, "event_timestamp")
        self.append(0, range(KEYS))
        materialize(self.settings)
        self.append(1, range(0, KEYS, 2))
        self.lake.table("spend").delete("card < 50")
        self.append(2, range(KEYS, KEYS + 500))
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()
        self.peer.close()

    def reach(self, server: LocalRedis) -> None:
        """Go on with a server that was started again, on another port if its own was taken, once it has read its rows."""
        self.store.close()
        self.settings = server.settings(self.settings)
        self.store = connect(self.settings)
        while self.store.info("persistence")["loading"]:
            time.sleep(0.01)

    def append(self, hour: int, cards: range) -> None:
        at = T + timedelta(hours=hour)
        rows = {
            "card": list(cards),
            "nb_1d": [card * 7 + hour for card in cards],
            "event_timestamp": [at] * len(cards),
            "created_timestamp": [at + timedelta(minutes=5)] * len(cards),
        }
        self.lake.append("spend", pa.table(rows, SPEND.schema), {TICK: str(to_micros(at))})

    def over(self, wire: Wire) -> Settings:
        return self.settings.model_copy(update={"redis_port": wire.port})

    @property
    def materializer(self) -> Materializer:
        return Materializer(self.settings, self.lake, Ledger.open(self.settings, "test"), self.store, "test", SPEND)

    @property
    def states(self) -> set[State]:
        return {row.state for row in Ledger.open(self.settings, "test").materializations("spend")}

    def assert_whole(self) -> None:
        """Run again until nothing is new, and compare with an unbroken run."""
        while self.materializer.run() is not None:
            pass
        materialize(self.peer_settings)
        assert contents(self.store) == contents(self.peer)
        assert len(contents(self.store)) == KEYS + 500 - 50
        assert self.materializer.diagnose().problems == ()
        assert self.states == {State.COMMITTED}


def somewhere(seed: int) -> int:
    """Return after how many bytes it happens: anywhere, also at the very beginning."""
    return random.Random(seed).choice([1, BYTES // 100, BYTES // 10, random.Random(seed).randrange(BYTES)])


@pytest.mark.parametrize("seed", range(6))
def test_a_writer_killed_at_any_command(case: Case, seed: int) -> None:
    writers: list[Any] = []
    with Wire(case.server.port, random.Random(seed).randrange(1, BYTES), lambda _: writers[0].kill()) as wire:
        writers.append(started(case.over(wire), chunks=3))
        writers[0].join()
        assert wire.befell
    assert writers[0].exitcode == -9
    case.assert_whole()


@pytest.mark.parametrize("answers", [False, True], ids=["request", "answer"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_connection_that_is_cut(case: Case, seed: int, answers: bool) -> None:
    after = somewhere(seed) if not answers else random.Random(seed).randrange(1, 3_000)
    with Wire(case.server.port, after, Wire.cut, answers=answers) as wire:
        with suppress(Transient):  # a connection that was idle when it was cut is made anew
            materialize(case.over(wire), chunks=2)
        assert wire.befell
    case.assert_whole()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_store_that_is_flushed_at_any_moment(case: Case, seed: int) -> None:
    with Wire(case.server.port, somewhere(seed), lambda _: case.store.flushall()) as wire:
        try:
            materialize(case.over(wire), chunks=2)
        except LockstepError as lost:
            assert "lost" in str(lost) or "not the one" in str(lost)  # noqa: PT017
        assert wire.befell
    case.assert_whole()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kept", ["nothing", "an older copy", "all"])
def test_a_server_that_is_killed_and_started_again(
    tmp_path: Path, settings: Settings, servers: tuple[LocalRedis, LocalRedis], seed: int, kept: str
) -> None:
    options = {"nothing": {}, "an older copy": {}, "all": {"appendonly": "yes", "appendfsync": "always"}}[kept]
    with KeepingRedis(tmp_path / "server", options) as server, Case(settings, server, servers[1]) as case:
        if kept == "an older copy":
            case.store.save()
        with Wire(server.port, somewhere(seed), lambda _: server.kill()) as wire:
            with pytest.raises(Transient):
                materialize(case.over(wire), chunks=2)
            assert wire.befell
        assert server.died.wait(10)
        server.start()
        case.reach(server)
        assert (len(contents(case.store)) > 0) is (kept != "nothing")
        case.assert_whole()


class KeepingRedis(LocalRedis):
    """A server that can keep its rows on disk and comes back on its port."""

    def __init__(self, home: Path, options: dict[str, str]) -> None:
        super().__init__(home)
        self._options = options
        self.died = threading.Event()  # the writer hears of it before the thread that killed it is done

    def kill(self) -> None:
        """End it as the kernel would."""
        assert self._child
        self._child._process.kill()
        self._child._process.wait()
        self._wanted = self.port
        self.died.set()

    def _command(self, server: Path) -> list[str]:
        return super()._command(server) + [
            word for name, value in self._options.items() for word in (f"--{name}", value)
        ]


def test_a_store_without_memory(case: Case) -> None:
    case.append(3, range(KEYS, KEYS + 500))
    used = case.store.info("memory")["used_memory"]
    case.store.config_set("maxmemory", used + 20_000)
    try:
        with pytest.raises(Terminal, match="the store is full: give it more memory"):
            materialize(case.settings, chunks=2)
        assert State.WRITING in case.states
    finally:
        case.store.config_set("maxmemory", 0)
    case.assert_whole()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_replica_that_is_promoted_without_the_last_writes(
    tmp_path: Path, settings: Settings, servers: tuple[LocalRedis, LocalRedis], seed: int
) -> None:
    with LocalRedis(tmp_path / "a") as primary, LocalRedis(tmp_path / "b") as replica:
        with Wire(primary.port) as wire:
            other = redis.Redis(port=replica.port)
            other.replicaof("127.0.0.1", primary.port)
            case = Case(settings, primary, servers[1])
            case.settings = case.over(wire)
            case.store = connect(case.settings)
            with case:
                deadline = time.monotonic() + 20
                while other.dbsize() != case.store.dbsize() and time.monotonic() < deadline:
                    time.sleep(0.05)

                def fail_over(_: Wire) -> None:
                    other.replicaof("NO", "ONE")
                    wire.lead_to(replica.port)

                with Wire(wire.port, somewhere(seed), fail_over) as outer:
                    # From here on nothing reaches the replica: what the primary accepts is lost.
                    other.config_set("repl-timeout", 3600)
                    other.replicaof("127.0.0.1", 1)
                    with pytest.raises((Transient, BadInput)):
                        materialize(case.over(outer), chunks=2)
                    assert outer.befell
                case.assert_whole()
            other.close()


@pytest.mark.parametrize("chunks", [(1, 1), (2, 3)])
@pytest.mark.parametrize("seed", range(2))
def test_two_identical_runs_at_once(case: Case, seed: int, chunks: tuple[int, int]) -> None:
    random.seed(seed)
    processes = [started(case.settings, count) for count in chunks]
    for process in processes:
        process.join()
    assert 0 in {process.exitcode for process in processes} or State.COMMITTED in case.states
    case.assert_whole()


def test_a_back_fill_that_races_a_stream(case: Case) -> None:
    """What the stream wrote is newer than anything in the lake: it stays, and nothing else is touched by it."""
    stream = PROCESSES.Process(target=keep_writing, args=(case.settings, 40))
    stream.start()
    materialize(case.settings, chunks=4)
    stream.join()
    assert stream.exitcode == 0
    newest = contents(case.store)
    materialize(case.peer_settings)
    keep_writing(case.peer_settings, 40)
    assert newest == contents(case.peer)


def keep_writing(settings: Settings, times: int) -> None:
    """Write ever newer rows of some cards."""
    with connect(settings) as store:
        for number in range(times):
            at = T + timedelta(hours=5, seconds=number)
            rows = [
                {"card": card, "nb_1d": number, "event_timestamp": at, "created_timestamp": at}
                for card in range(100, 1_000, 3)
            ]
            write_rows(store, "test", VIEW, pa.Table.from_pylist(rows, SPEND.schema))


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_writer_whose_clock_is_wrong(case: Case, minutes: int, tmp_path: Path) -> None:
    file = tmp_path / "wrong clock"
    file.write_text(str(int(case.settings.clock_file.read_text()) + minutes * 60_000_000))
    materialize(case.settings.model_copy(update={"clock_file": file}), chunks=2)
    case.assert_whole()


def test_a_snapshot_that_expired_between_plan_and_run(case: Case) -> None:
    plan = case.materializer.plan(2)
    case.append(3, range(KEYS, KEYS + 500))
    for snapshot in case.lake.snapshots("spend")[:-1]:
        case.lake.table("spend").maintenance.expire_snapshots().by_id(snapshot.id).commit()
    with pytest.raises(BadInput, match="it may have expired"):
        case.materializer.write(plan.interval, plan.chunks[0])
    case.assert_whole()


def test_compactions_between_plan_and_run_and_between_intervals(case: Case) -> None:
    plan = case.materializer.plan(2)
    compact(case.lake.table("spend"))
    written = [case.materializer.write(plan.interval, chunk) for chunk in plan.chunks]
    compact(case.lake.table("spend"))
    case.materializer.verify(plan.interval, written)
    case.materializer.commit(plan.interval)
    case.assert_whole()


def test_a_ledger_whose_disk_is_full(case: Case) -> None:
    """The kernel refuses to let a file grow, as on a full disk, in a process of its own."""
    ledger = Path(case.settings.ledger_url.removeprefix("sqlite:///"))
    before = Ledger.open(case.settings, "test").materializations("spend")
    process = PROCESSES.Process(target=materialize_without_disk, args=(case.settings, ledger.stat().st_size))
    process.start()
    process.join()
    assert process.exitcode == 3
    assert Ledger.open(case.settings, "test").materializations("spend") == before
    case.assert_whole()


def materialize_without_disk(settings: Settings, size: int) -> None:
    """End with 3 where the ledger says that it cannot be written."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
    try:
        materialize(settings)
    except LockstepError as refused:
        raise SystemExit(3 if "ledger" in str(refused) else 4) from refused

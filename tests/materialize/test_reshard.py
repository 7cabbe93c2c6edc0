"""Slots of a cluster that are handed from one primary to another, between runs, under a run and under a reader."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pyarrow as pa
import pytest
from redis.crc import key_slot

from lockstep.contract import Column
from lockstep.errors import LostStore, Transient
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode
from lockstep.online.cluster import primaries
from lockstep.online.copies import copies_of
from lockstep.online.epoch import EpochStore
from lockstep.online.reader import OnlineReader, Reading, ReadPlan
from lockstep.online.store import Store, connect, connect_async
from lockstep.online.writer import read_back, write_rows
from lockstep.settings import Settings
from tests.kinds import Clustered, Server
from tests.materialize.spend import CONTRACT, SPEND, VIEW, T, contents, served, tick

CARDS = {f"c{card}": card for card in range(300)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    with Clustered(tmp_path_factory.mktemp("cluster"), primaries=4, empty=1).running() as cluster:
        yield cluster


@pytest.fixture
def store(online: Settings) -> Iterator[Store]:
    with connect(online) as client:
        for primary in primaries(client):
            primary.client.flushall()
        yield client


def rows_of(store: Store) -> dict[bytes, dict[bytes, bytes]]:
    return {key: value for primary in primaries(store) for key, value in contents(primary.client).items()}


@pytest.fixture
def moves(server: Clustered, store: Store, lake, spend) -> Iterator["Moves"]:
    """A view is online on three primaries; slots with rows of it are to go to the fourth, and come back in the end."""
    tick(lake, 0, **CARDS)
    spend.run()
    source, target = server.primaries[0], server.primaries[3]
    held = sorted({key_slot(key) for key in source.client.scan_iter() if not key.startswith(b"lockstep:")})
    made = Moves(server, source, target, held[:20])
    yield made
    made.end()
    owned = [n for n, owner in owners(target).items() if owner == target.port]
    server.move(owned, target, source)


def owners(server: Server) -> dict[int, int]:
    table = server.client.execute_command("CLUSTER SLOTS")
    return {slot: entry[2][1] for entry in table for slot in range(entry[0], entry[1] + 1)}


class Moves:
    """Hands slots over, step by step."""

    def __init__(self, cluster: Clustered, source: Server, target: Server, slots: list[int]) -> None:
        self.cluster, self.source, self.target, self.slots = cluster, source, target, slots
        self._open = False

    def begin(self) -> None:
        """Open the slots; half of their rows have gone, in some slots all."""
        self._open = True
        self.cluster.begin_move(self.slots, self.source, self.target)
        self.cluster.move_keys(self.slots[::2], self.source, self.target)

    def end(self) -> None:
        if self._open:
            self.cluster.move_keys(self.slots, self.source, self.target)
            self.cluster.end_move(self.slots, self.target)
        self._open = False

    def all(self) -> None:
        self.begin()
        self.end()


def test_a_moved_slot_is_a_repair(moves: Moves, store: Store, lake, spend, online, caplog) -> None:
    before, rows = copies_of(store, "test"), rows_of(store)
    assert (len(before), len(rows)) == (3, 300)
    moves.all()
    assert served(online, *range(300)) == list(range(300))
    (problem, *_) = spend.diagnose().problems
    assert "slots" in problem
    done = spend.run()
    assert (done.mode, done.writes_from, done.rows_accepted) == (Mode.REPAIR, 0, 300)
    assert "lost writes" in caplog.text
    assert len(copies_of(store, "test")) == 4
    assert rows_of(store) == rows
    assert spend.run() is None
    assert spend.diagnose().problems == ()
    keys = {key for primary in primaries(store) for key in primary.client.scan_iter("lockstep:*")}
    assert keys == {copy.key.encode() for copy in copies_of(store, "test")}, "copies of other slots are gone"


def test_an_interval_that_slots_were_moved_under_is_written_again(moves: Moves, store: Store, lake, spend) -> None:
    tick(lake, 1, **{card: value + 1 for card, value in CARDS.items()})
    plan = spend.plan()
    written = spend.write(plan.interval, plan.chunks[0])
    moves.all()
    with pytest.raises(Transient, match="lost since, or is being written anew"):
        spend.verify(plan.interval, [written])
    while spend.run() is not None:
        pass
    assert spend.diagnose().problems == ()


def test_rows_are_written_and_read_back_while_slots_are_on_their_way(
    moves: Moves, store: Store, lake, spend, online
) -> None:
    values = {card: value + 1 for card, value in CARDS.items()}
    tick(lake, 1, **values, **{f"c{n}": n for n in range(1_000, 1_500)})
    moves.begin()
    done = spend.run()
    assert (done.rows_accepted, done.rows_rejected) == (800, 0)
    assert served(online, *range(300), 1_499) == [*range(1, 301), 1_499]
    assert spend.diagnose().problems == ()
    moves.end()
    spend.run()
    assert served(online, *range(300), 1_499) == [*range(1, 301), 1_499]


def test_a_writer_with_an_old_table_of_slots_follows(moves: Moves, store: Store, lake) -> None:
    rows = lake.table("spend").scan().to_arrow().select(SPEND.schema.names).cast(SPEND.schema)
    told: list[int] = []

    def move(count: int) -> None:
        if not told:
            moves.all()
        told.append(count)

    done = write_rows(store, "test", VIEW, rows, progress=move, batch_rows=20)
    assert (done.accepted, done.rejected, sum(told)) == (300, 0, 300)
    assert read_back(store, "test", VIEW, rows) == []


def test_of_two_rows_of_a_slot_one_may_have_gone_already(moves: Moves, store: Store) -> None:
    """What is in braces decides on the slot: such rows share a call, which the server then refuses as a whole."""
    view = VIEW.model_copy(update={"join_keys": (Column(name="card", dtype="string"),)})
    schema = SPEND.schema.set(0, pa.field("card", pa.string()))
    slot = key_slot(b"1")
    source, target = moves.cluster.primaries[1], moves.target
    assert owners(source)[slot] == source.port

    def rows(count: int, nb: int) -> pa.Table:
        times = {"event_timestamp": T + timedelta(hours=nb), "created_timestamp": T}
        return pa.Table.from_pylist([{"card": f"{n} of {{1}}", "nb_1d": nb, **times} for n in range(count)], schema)

    write_rows(store, "test", view, rows(10, 1))
    moves.cluster.begin_move([slot], source, target)
    try:
        done = write_rows(store, "test", view, rows(20, 2))
        assert (done.accepted, done.rejected) == (20, 0)
        assert read_back(store, "test", view, rows(20, 2)) == []
        assert len(target.client.keys("*of*")) == 10
    finally:
        moves.cluster.move_keys([slot], source, target)
        moves.cluster.end_move([slot], target)
        moves.cluster.move([slot], target, source)


def test_a_reader_follows_slots_wherever_they_are(moves: Moves, store: Store, lake, spend, online) -> None:
    async def read(reader: OnlineReader) -> Reading:
        return await reader.read({"card": list(range(301))}, [0] * 301)

    async def follow() -> list[Reading]:
        client = connect_async(online)
        try:
            reader = OnlineReader(client, ReadPlan.compile(CONTRACT))
            found = [await read(reader)]
            for step in (moves.begin, moves.end, spend.run):
                await asyncio.to_thread(step)
                found.append(await read(reader))
            await asyncio.sleep(1.1)
            found.append(await read(reader))
            return found
        finally:
            await client.aclose()

    readings = asyncio.run(follow())
    assert [r.views["spend"].values["nb_1d"] for r in readings] == [[*range(300), None]] * 5
    first, during, _, _, last = [r.before for r in readings]
    assert first.views["spend"].committed.interval == 1
    assert during.incarnation is None, "of a primary without a slot nothing is known"
    assert last == EpochStore(store, "test").read()
    assert last.views["spend"].committed.interval == 2


def test_a_cluster_of_another_ledger_is_refused_also_without_one_of_its_copies(
    moves: Moves, store: Store, spend
) -> None:
    copies = copies_of(store, "test")
    for copy in copies:
        copy.set("incarnation", b"f" * 32)
    copies[0].primary.client.delete(copies[0].key)
    with pytest.raises(LostStore, match="not the one that was written to"):
        spend.run()


def test_two_runs_that_find_a_moved_slot_at_once_end_as_one(moves: Moves, store: Store, lake, spend, online) -> None:
    moves.all()
    with connect(online) as another:
        second = Materializer(online, lake, Ledger.open(online, "test"), another, "test", SPEND)
        first_plan, second_plan = spend.plan(), second.plan()
        assert first_plan.interval == second_plan.interval
        while second.run() is not None:
            pass
    assert spend.run() is None
    assert spend.diagnose().problems == ()

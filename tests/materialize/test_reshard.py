"""Slots of a cluster that are handed from one primary to another, between runs, under a run and under a reader."""

import asyncio
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from redis.asyncio.cluster import NodesManager
from redis.crc import key_slot

from lockstep.contract import Column
from lockstep.errors import LostStore, Terminal, Transient
from lockstep.local.ports import LOOPBACK
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode
from lockstep.online import withdraw
from lockstep.online.cluster import primaries, scan
from lockstep.online.copies import copies_of
from lockstep.online.epoch import Epochs, EpochStore
from lockstep.online.exchange import Exchange
from lockstep.online.layout import EntityKeys
from lockstep.online.reader import OnlineReader, Reading, ReadPlan, read_online
from lockstep.online.store import Store, connect, connect_async
from lockstep.online.sweep import Swept, sweep
from lockstep.online.withdraw import StoredTimes
from lockstep.online.writer import read_back, write_rows
from lockstep.settings import Settings
from tests.kinds import Clustered, Server
from tests.materialize.spend import CONTRACT, SPEND, TOGETHER, VIEW, T, contents, served, tick

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


@contextmanager
def handed_over(server: Clustered, slots: Sequence[int], source: Server, target: Server) -> Iterator[None]:
    """Slots go from one primary to another that has others, and come back in the end."""
    server.move(slots, source, target)
    try:
        yield
    finally:
        server.move(slots, target, source)


def slot_of(card: int) -> int:
    return key_slot(EntityKeys("test", VIEW.join_keys).encode({"card": [card]})[0])


def cards_of(server: Server, but: Collection[int] = ()) -> list[int]:
    """Return the cards whose rows a server has, other than those of some slots."""
    own = owners(server)
    return [card for card in range(300) if own[slot_of(card)] == server.port and slot_of(card) not in but]


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


@pytest.mark.parametrize("which", ["a row's", "the copy's"])
def test_a_slot_that_goes_to_a_primary_with_others_is_a_repair(
    moves: Moves, store: Store, lake, spend, which: str
) -> None:
    source, target = moves.cluster.primaries[0], moves.cluster.primaries[2]
    name = EpochStore(store, "test").read().incarnation
    slot = moves.slots[0] if which == "a row's" else key_slot(copies_of(store, "test")[0].key.encode())
    with handed_over(moves.cluster, [slot], source, target):
        assert EpochStore(store, "test").read().incarnation is None
        done = spend.run()
        assert (done.mode, done.rows_accepted) == (Mode.REPAIR, 300)
        assert EpochStore(store, "test").read().incarnation not in {None, name}
        assert spend.run() is None
        keys = {key for primary in primaries(store) for key in primary.client.scan_iter("lockstep:*")}
        assert keys == {copy.key.encode() for copy in copies_of(store, "test")}


def test_slots_that_are_moved_before_the_commit_have_it_all_written_again(
    moves: Moves, store: Store, lake, spend, online
) -> None:
    tick(lake, 1, c1=50)
    plan = spend.plan()
    spend.verify(plan.interval, [spend.write(plan.interval, plan.chunks[0])])
    source, target = moves.cluster.primaries[:2]
    with handed_over(moves.cluster, moves.slots[:1], source, target):
        done = spend.commit(plan.interval)
        assert (done.writes_from, done.rows_accepted) == (0, 300)
        assert served(online, 1, 2) == [50, 2]
        assert spend.run() is None
        assert spend.diagnose().problems == ()


def test_a_primary_that_is_flushed_under_two_runs_is_no_other_ledgers(
    moves: Moves, store: Store, lake, spend, online, monkeypatch
) -> None:
    moves.source.client.flushall()
    read = spend._whole.epochs.read
    with connect(online) as client:
        another = Materializer(online, lake, Ledger.open(online, "test"), client, "test", SPEND)

        def overtaken() -> Epochs:
            found = read()
            monkeypatch.undo()
            another.plan()
            return found

        monkeypatch.setattr(spend._whole.epochs, "read", overtaken)
        with pytest.raises(Transient, match="another run has just found out"):
            spend.run()
    while spend.run() is not None:
        pass
    assert spend.diagnose().problems == ()


def test_a_primary_that_another_run_has_just_named_is_no_other_ledgers(
    moves: Moves, store: Store, spend, monkeypatch
) -> None:
    moves.source.client.flushall()
    epochs = spend._whole.epochs
    read = epochs.read

    def overtaken() -> Epochs:
        found = read()
        monkeypatch.undo()
        epochs.ensure_incarnation()  # the other's ledger row is still to come
        return found

    monkeypatch.setattr(epochs, "read", overtaken)
    assert spend.run().rows_accepted == 300


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


def test_of_the_rows_of_a_slot_that_is_on_its_way_each_is_in_one_place(
    moves: Moves, store: Store, lake, spend, online
) -> None:
    tick(lake, 1, **{f"c{card}": 1 for card in TOGETHER[:3]})
    spend.run()
    source, target = moves.cluster.primaries[:2]
    slot = slot_of(TOGETHER[0])
    assert {slot_of(card) for card in TOGETHER} == {slot}
    keys = EntityKeys("test", VIEW.join_keys).encode({"card": TOGETHER})
    moves.cluster.begin_move([slot], source, target)
    try:
        source.client.execute_command("MIGRATE", LOOPBACK, target.port, "", 0, 5_000, "KEYS", keys[0])
        tick(lake, 2, **{f"c{card}": 2 for card in TOGETHER})
        done = spend.run()
        assert (done.rows_accepted, done.rows_rejected) == (4, 0)
        held = [set(server.client.keys()) & set(keys) for server in (source, target)]
        assert held == [{keys[1], keys[2]}, {keys[0], keys[3]}]
        assert served(online, *TOGETHER) == [2, 2, 2, 2]
    finally:
        moves.cluster.move_keys([slot], source, target)
        moves.cluster.end_move([slot], target)
    try:
        assert served(online, *TOGETHER) == [2, 2, 2, 2]
    finally:
        moves.cluster.move([slot], target, source)


def test_a_slot_that_is_moved_under_a_scan_is_noticed(moves: Moves, store: Store, monkeypatch) -> None:
    source, target = moves.cluster.primaries[2], moves.cluster.primaries[0]
    slot = slot_of(cards_of(source)[0])
    pages = scan(store, 10)
    next(pages)
    with handed_over(moves.cluster, [slot], source, target), pytest.raises(Transient, match="may have been missed"):
        deque(pages)
    monkeypatch.setattr(withdraw, "_BATCH_ROWS", 10)
    times = iter(StoredTimes(store, "test", VIEW))
    next(times)
    with handed_over(moves.cluster, [slot], source, target), pytest.raises(Transient, match="may have been missed"):
        deque(times)


def test_a_sweep_that_slots_are_moved_under_forgets_no_view(moves: Moves, store: Store, spend) -> None:
    source, target = moves.cluster.primaries[2], moves.cluster.primaries[0]
    slot = slot_of(cards_of(source)[0])
    going = [("spend", ("nb_1d",))]
    with ExitStack() as until_then:

        def progress(_: Swept) -> None:
            if not moved:
                moved.append(until_then.enter_context(handed_over(moves.cluster, [slot], source, target)))

        moved: list[None] = []
        with pytest.raises(Transient, match="may have been missed"):
            sweep(store, "test", [], going, progress=progress)
        assert "spend" in EpochStore(store, "test").read().views
        sweep(store, "test", [], going)
        assert rows_of(store) == {}


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


def looked(patch: pytest.MonkeyPatch) -> list[None]:
    """Return a list that grows with each look of a reader at the cluster's layout."""
    looks: list[None] = []
    look = NodesManager.initialize

    async def counted(manager: NodesManager) -> None:
        looks.append(None)
        await look(manager)

    patch.setattr(NodesManager, "initialize", counted)
    return looks


def test_rows_of_a_moved_slot_are_vouched_for_by_nobody(moves: Moves, store: Store, spend, online) -> None:
    source, target, third = moves.cluster.primaries[:3]
    (card, *_), slot = cards_of(source), slot_of(cards_of(source)[0])
    beside, elsewhere = cards_of(target)[0], cards_of(third)[0]
    name = EpochStore(store, "test").read().incarnation
    source.client.delete(*EntityKeys("test", VIEW.join_keys).encode({"card": [card]}))  # as if it was lost on its way

    async def follow() -> list[str | None]:
        async with connect_async(online) as client:
            reader = OnlineReader(client, ReadPlan.compile(CONTRACT))
            found = [(await reader.read({"card": [other]}, [0])).before for other in (card, beside, elsewhere)]
            with await asyncio.to_thread(lambda: handed_over(moves.cluster, [slot], source, target)):
                after = ([beside], [card], [elsewhere], [elsewhere, beside])
                found += [(await reader.read({"card": cards}, [0] * len(cards))).before for cards in after]
        assert [epochs.views["spend"].committed.interval for epochs in found] == [1] * 7
        return [epochs.incarnation for epochs in found]

    # Before it knows of the move, it reads of the target what was there all the time.
    assert asyncio.run(follow()) == [name, name, name, name, None, name, None]


def test_rows_of_a_slot_that_is_on_its_way_are_vouched_for_by_nobody(moves: Moves, store: Store, online) -> None:
    source, target = moves.cluster.primaries[:2]
    card = cards_of(source)[0]
    slot = slot_of(card)
    moves.cluster.begin_move([slot], source, target)
    try:
        assert read_online(online, CONTRACT, {"card": [card]}, [0]).before.incarnation is not None
        moves.cluster.move_keys([slot], source, target)
        gone = read_online(online, CONTRACT, {"card": [card]}, [0])
        assert (gone.views["spend"].values["nb_1d"], gone.before.incarnation) == ([card], None)
    finally:
        moves.cluster.end_move([slot], target)
        moves.cluster.move([slot], target, source)


def test_a_reader_that_was_told_of_no_move_finds_out_within_a_second(
    moves: Moves, store: Store, spend, online, monkeypatch
) -> None:
    source, target = moves.cluster.primaries[:2]
    cards = cards_of(target)[:20]
    looks = looked(monkeypatch)

    async def follow() -> None:
        async with connect_async(online) as client:
            reader = OnlineReader(client, ReadPlan.compile(CONTRACT))

            async def names() -> set[str | None]:
                many = await asyncio.gather(*(reader.read({"card": cards}, [0] * 20) for _ in range(30)))
                return {reading.before.incarnation for reading in many}

            await names()
            assert len(looks) == 1, "many at once ask once"
            with await asyncio.to_thread(lambda: handed_over(moves.cluster, moves.slots[:1], source, target)):
                await asyncio.to_thread(spend.run)
                reader._cluster._looked = time.monotonic() + 60  # whatever else this machine has to do
                assert (await names(), len(looks)) == ({None}, 1)
                reader._cluster._looked -= 61
                assert len(await names()) == 2, "who asks knows at once"
                assert (await names(), len(looks)) == ({EpochStore(store, "test").read().incarnation}, 2)
            await asyncio.to_thread(spend.run)

    asyncio.run(follow())


def test_a_read_goes_on_with_the_layout_that_it_began_with(moves: Moves, online, monkeypatch) -> None:
    ask = Exchange.ask
    cards = list(range(300))

    async def read() -> None:
        async with connect_async(online) as client:
            reader = OnlineReader(client, ReadPlan.compile(CONTRACT))
            await reader.read({"card": cards}, [0] * 300)
            await asyncio.to_thread(moves.begin)

            async def overtaken(exchange: Exchange, message: bytes, answers: int) -> list[Any]:
                found = await ask(exchange, message, answers)
                monkeypatch.setattr(Exchange, "ask", ask)
                await asyncio.to_thread(moves.end)
                await reader.read({"card": cards}, [0] * 300)  # which looks at the layout: a primary more
                return found

            monkeypatch.setattr(Exchange, "ask", overtaken)
            found = await reader.read({"card": cards}, [0] * 300)
            assert found.views["spend"].values["nb_1d"] == cards

    asyncio.run(read())


def test_a_refusal_of_one_primary_is_told_as_such(moves: Moves, online) -> None:
    async def read() -> None:
        async with connect_async(online) as client:
            reader = OnlineReader(client, ReadPlan.compile(CONTRACT))
            await reader.read({"card": [*range(300)]}, [0] * 300)
            moves.source.client.execute_command("ACL", "SETUSER", "default", "-hgetall")
            reader._cluster._looked -= 60
            with pytest.raises(Terminal, match="refuses"):
                await reader.read({"card": [*range(300)]}, [0] * 300)

    try:
        asyncio.run(read())
    finally:
        moves.source.client.execute_command("ACL", "SETUSER", "default", "+hgetall")


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

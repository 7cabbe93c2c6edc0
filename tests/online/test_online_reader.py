"""The reader: missing, stale and null are three things; the epoch hash is read around the rows; one round trip."""

import asyncio
import threading
from typing import Any

import pytest
import redis
import redis.asyncio
from stored_rows import HOUR_US, NOON_US, PROJECT, key_of, make_contract, make_rows, make_view, write_as_feast

from lockstep.errors import BadInput, NotYetSupported, SchemaDrift, Terminal, Transient
from lockstep.local import LocalRedis
from lockstep.online.epoch import EpochStore, Mark, ViewEpoch
from lockstep.online.layout import event_field, field_of
from lockstep.online.reader import OnlineReader, Reading, ReadPlan, read_online
from lockstep.online.store import connect, connect_async
from lockstep.online.writer import write_rows
from lockstep.settings import Settings

SPEND = make_view("spend", {"n": "int64", "mean": "float64"}, ttl_us=HOUR_US)
RISK = make_view("risk", {"score": "float32"})
SHOP = make_view("shop", {"name": "string"}, join_keys={"shop_id": "string", "customer_id": "int64"})


def test_present_missing_stale_and_null_are_told_apart(store: redis.Redis, store_settings: Settings) -> None:
    rows = make_rows(
        SPEND,
        (1, 10, 1.5, NOON_US, 5),
        (2, 20, 2.5, NOON_US - HOUR_US, 6),
        (3, 30, 3.5, NOON_US - HOUR_US - 1, 7),
        (4, None, float("nan"), NOON_US, 8),
    )
    write_rows(store, PROJECT, SPEND, rows)

    reading = read_online(store_settings, make_contract(SPEND), {"customer_id": [1, 2, 3, 4, 5]}, [NOON_US] * 5)
    spend = reading.views["spend"]

    assert spend.status == ["present", "present", "stale", "present", "missing"]
    assert spend.event_us == [NOON_US, NOON_US - HOUR_US, NOON_US - HOUR_US - 1, NOON_US, None]
    assert spend.created_us == [5, 6, 7, 8, None]
    assert spend.values == {"n": [10, 20, 30, None, None], "mean": [1.5, 2.5, 3.5, None, None]}
    assert spend.usable("n") == [10, 20, None, None, None]
    assert spend.usable("mean") == [1.5, 2.5, None, None, None]


def test_the_ttl_is_judged_at_each_rows_own_request_time(store: redis.Redis, store_settings: Settings) -> None:
    write_rows(store, PROJECT, SPEND, make_rows(SPEND, (1, 10, 1.5, NOON_US, 5)))
    times = [NOON_US - 1, NOON_US + HOUR_US, NOON_US + HOUR_US + 1]

    spend = read_online(store_settings, make_contract(SPEND), {"customer_id": [1, 1, 1]}, times).views["spend"]

    assert spend.status == ["present", "present", "stale"]
    assert spend.values["n"] == [10, 10, 10]


def test_a_ttl_of_zero_is_for_ever(store: redis.Redis, store_settings: Settings) -> None:
    write_rows(store, PROJECT, RISK, make_rows(RISK, (1, 0.5, 0, 0)))

    risk = read_online(store_settings, make_contract(RISK), {"customer_id": [1]}, [NOON_US]).views["risk"]

    assert (risk.status, risk.event_us, risk.created_us, risk.usable("score")) == (["present"], [0], [0], [0.5])


def test_a_row_of_a_stock_feast_writer_is_read_with_created_unknown(
    store: redis.Redis, store_settings: Settings
) -> None:
    view = make_view()
    write_rows(store, PROJECT, view, make_rows(view, (1, 10, NOON_US, 5)))
    write_as_feast(store, view, 1, 11, NOON_US + 1)

    spend = read_online(store_settings, make_contract(view), {"customer_id": [1]}, [NOON_US + 1]).views["spend"]

    assert (spend.status, spend.event_us, spend.created_us) == (["present"], [NOON_US + 1], [-1])
    assert spend.usable("n") == [11]


def test_a_column_that_was_never_written_is_null(store: redis.Redis, store_settings: Settings) -> None:
    write_rows(store, PROJECT, make_view(), make_rows(make_view(), (1, 10, NOON_US, 5)))

    spend = read_online(store_settings, make_contract(SPEND), {"customer_id": [1]}, [NOON_US]).views["spend"]

    assert (spend.status, spend.values) == (["present"], {"n": [10], "mean": [None]})


def test_views_of_several_entities_come_in_the_contracts_order_and_in_request_order(
    store: redis.Redis, store_settings: Settings
) -> None:
    write_rows(store, PROJECT, SPEND, make_rows(SPEND, *[(k, k * 10, k / 2, NOON_US, k) for k in (1, 2, 3)]))
    write_rows(store, PROJECT, RISK, make_rows(RISK, (2, 0.25, NOON_US, 9)))
    write_rows(store, PROJECT, SHOP, make_rows(SHOP, (1, "Käse", "cheese", NOON_US, 1), (2, "Brot", None, NOON_US, 2)))
    entities = {"customer_id": [3, 1, 2, 1], "shop_id": ["Käse", "Käse", "Brot", "Brot"]}

    views = read_online(store_settings, make_contract(RISK, SHOP, SPEND), entities, [NOON_US] * 4).views

    assert list(views) == ["risk", "shop", "spend"]
    assert views["spend"].values["n"] == [30, 10, 20, 10]
    assert views["spend"].created_us == [3, 1, 2, 1]
    assert views["risk"].status == ["missing", "missing", "present", "missing"]
    assert views["risk"].values["score"] == [None, None, 0.25, None]
    assert views["shop"].status == ["missing", "present", "present", "missing"]
    assert views["shop"].values["name"] == [None, "cheese", None, None]


def test_one_read_is_one_round_trip_with_one_hmget_per_entity(store: redis.Redis, store_settings: Settings) -> None:
    before = store.info("commandstats")
    read_online(store_settings, make_contract(SPEND, RISK), {"customer_id": [1, 2, 1, 2, 1]}, [NOON_US] * 5)
    after = store.info("commandstats")

    calls = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    assert calls["cmdstat_hmget"] == 2
    assert calls["cmdstat_hgetall"] == 2
    assert "cmdstat_multi" not in after


def test_a_request_without_rows_reads_the_epoch_alone(store: redis.Redis, store_settings: Settings) -> None:
    reading = read_online(store_settings, make_contract(SPEND), {"customer_id": []}, [])

    assert reading.before.incarnation is None
    assert reading.views["spend"].values == {"n": [], "mean": []}


class ChangingConnection:
    """A connection that lets somebody else's command be carried out between the first of a message and the next."""

    socket_timeout = socket_connect_timeout = None

    def __init__(self, connection: Any, intruder: tuple[bytes, ...]) -> None:
        self.inner, self._intruder, self._read = connection, intruder, 0

    async def send_packed_command(self, message: bytes) -> None:
        self._read = 0
        second = message.index(b"*", 1)
        intruder = b"".join(self.inner.pack_command(*self._intruder))
        await self.inner.send_packed_command(message[:second] + intruder + message[second:])

    async def read_response(self) -> Any:
        self._read += 1
        if self._read == 2:
            await self.inner.read_response()
        return await self.inner.read_response()


class ChangingStore:
    """A client, and its pool of such connections."""

    def __init__(self, client: redis.asyncio.Redis, *intruder: Any) -> None:
        self._pool, self._intruder = client.connection_pool, intruder
        self.connection_pool = self

    def get_available_connection(self) -> ChangingConnection:
        return ChangingConnection(self._pool.get_available_connection(), self._intruder)

    async def ensure_connection(self, changing: ChangingConnection) -> None:
        await self._pool.ensure_connection(changing.inner)

    async def release(self, changing: ChangingConnection) -> None:
        await self._pool.release(changing.inner)


def test_a_commit_between_the_two_epoch_readings_shows_in_their_difference(
    store: redis.Redis, store_settings: Settings
) -> None:
    epochs = EpochStore(store, PROJECT)
    epochs.ensure_incarnation()
    epochs.restore("spend", ViewEpoch(Mark(1, 11, 1, NOON_US)))
    epochs.set_writing("spend", Mark(2, 12, 2, NOON_US + HOUR_US))
    before = epochs.read()
    epochs.set_committed("spend", Mark(2, 12, 2, NOON_US + HOUR_US))
    after = epochs.read()
    committed = store.hget("lockstep:epoch:fraud", "view:spend")
    epochs.restore("spend", before.views["spend"])

    async def read() -> tuple[Reading, Reading]:
        async with connect_async(store_settings) as client:
            intruded = ChangingStore(client, "HSET", "lockstep:epoch:fraud", "view:spend", committed)
            reader = OnlineReader(intruded, ReadPlan.compile(make_contract(SPEND)))  # type: ignore[arg-type]
            return [await reader.read({"customer_id": [1]}, [NOON_US]) for _ in range(2)]  # type: ignore[return-value]

    first, second = asyncio.run(read())

    assert (first.before, first.after) == (before, after)
    assert (second.before, second.after) == (after, after)


def test_between_equal_epochs_without_writing_every_row_is_of_the_committed_interval(
    store: redis.Redis, store_settings: Settings
) -> None:
    view = make_view()
    keys = list(range(400))
    stop = threading.Event()

    def materialize() -> None:
        with connect(store_settings) as own:
            epochs, number = EpochStore(own, PROJECT), 0
            while not stop.is_set():
                number += 1
                mark = Mark(number, number, number, number)
                epochs.set_writing("spend", mark)
                write_rows(own, PROJECT, view, make_rows(view, *[(k, number, number, number) for k in keys]))
                epochs.set_committed("spend", mark)

    async def read(rounds: int) -> list[Reading]:
        async with connect_async(store_settings) as client:
            reader = OnlineReader(client, ReadPlan.compile(make_contract(view)))
            return [await reader.read({"customer_id": keys}, [NOON_US] * len(keys)) for _ in range(rounds)]

    writer = threading.Thread(target=materialize)
    writer.start()
    try:
        readings = asyncio.run(read(100))
    finally:
        stop.set()
        writer.join()

    for reading in readings:
        nothing = ViewEpoch()
        before, after = (epochs.views.get("spend", nothing) for epochs in (reading.before, reading.after))
        low = before.committed.interval if before.committed else 0
        high = max((m.interval for m in (after.committed, after.writing, before.writing) if m), default=0)
        found = {n or 0 for n in reading.views["spend"].values["n"]}
        if before == after and before.writing is None:
            assert found == {low}
        else:
            assert found <= set(range(low, high + 1))
    assert len({max(n or 0 for n in r.views["spend"].values["n"]) for r in readings}) > 1


def test_a_read_that_was_given_up_does_not_answer_the_next_one(store: redis.Redis, store_settings: Settings) -> None:
    write_rows(store, PROJECT, SPEND, make_rows(SPEND, *[(k, k * 10, 0.5, NOON_US, 5) for k in (1, 2)]))

    async def read() -> list[Any]:
        async with connect_async(store_settings) as client:
            reader = OnlineReader(client, ReadPlan.compile(make_contract(SPEND)))
            await reader.read({"customer_id": [1]}, [NOON_US])
            store.execute_command("CLIENT", "PAUSE", 150)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await reader.read({"customer_id": [1]}, [NOON_US])
            return (await reader.read({"customer_id": [2]}, [NOON_US])).views["spend"].values["n"]

    assert asyncio.run(read()) == [20]


def test_connections_that_the_server_closed_are_replaced_without_a_failure(
    store: redis.Redis, store_settings: Settings
) -> None:
    write_rows(store, PROJECT, SPEND, make_rows(SPEND, *[(k, k * 10, 0.5, NOON_US, 5) for k in range(3)]))

    async def read() -> list[list[Any]]:
        async with connect_async(store_settings) as client:
            reader = OnlineReader(client, ReadPlan.compile(make_contract(SPEND)))
            found: list[list[Any]] = []
            for _ in range(2):
                readings = await asyncio.gather(*[reader.read({"customer_id": [k]}, [NOON_US]) for k in range(3)])
                found.append([reading.views["spend"].values["n"][0] for reading in readings])
                assert store.execute_command("CLIENT", "KILL", "TYPE", "normal") == 3
            return found

    assert asyncio.run(read()) == [[0, 10, 20]] * 2


def test_a_store_that_does_not_answer_in_time_is_transient(store: redis.Redis, server: LocalRedis) -> None:
    async def read() -> None:
        async with redis.asyncio.Redis(port=server.port, socket_timeout=0.05) as client:
            reader = OnlineReader(client, ReadPlan.compile(make_contract(SPEND)))
            await reader.read({"customer_id": [1]}, [NOON_US])
            store.execute_command("CLIENT", "PAUSE", 150)
            with pytest.raises(Transient, match=r"0 of 3 answers came in 0\.05 s"):
                await reader.read({"customer_id": [1]}, [NOON_US])

    asyncio.run(read())


def test_a_refused_command_does_not_shift_the_answers_of_the_next_read(
    store: redis.Redis, store_settings: Settings
) -> None:
    write_rows(store, PROJECT, SPEND, make_rows(SPEND, (2, 20, 0.5, NOON_US, 5)))
    store.set(key_of(SPEND, 1), "no hash")

    async def read() -> list[Any]:
        async with connect_async(store_settings) as client:
            reader = OnlineReader(client, ReadPlan.compile(make_contract(SPEND)))
            with pytest.raises(Terminal, match="wrong kind of value"):
                await reader.read({"customer_id": [1, 2]}, [NOON_US] * 2)
            return (await reader.read({"customer_id": [2]}, [NOON_US])).views["spend"].values["n"]

    assert asyncio.run(read()) == [20]


@pytest.mark.parametrize(
    ("entities", "problem"),
    [
        ({}, "customer_id is missing"),
        ({"customer_id": [1, 2]}, "2 values of the join key customer_id for 1 request times"),
        ({"customer_id": ["1"]}, "takes int64"),
        ({"customer_id": [None]}, "takes int64"),
        ({"customer_id": [1 << 63]}, "does not fit int64"),
    ],
)
def test_entities_that_do_not_fit_the_contract_are_refused(
    store_settings: Settings, entities: dict[str, list[Any]], problem: str
) -> None:
    with pytest.raises(BadInput, match=problem):
        read_online(store_settings, make_contract(SPEND), entities, [NOON_US])


def test_stored_bytes_that_the_contract_does_not_explain_are_refused(
    store: redis.Redis, store_settings: Settings
) -> None:
    write_rows(store, PROJECT, SPEND, make_rows(SPEND, (1, 10, 1.5, NOON_US, 5)))
    store.hset(key_of(SPEND, 1), field_of("spend", "mean"), b"\x20\x01")

    with pytest.raises(SchemaDrift, match="no float64"):
        read_online(store_settings, make_contract(SPEND), {"customer_id": [1]}, [NOON_US])
    assert store.hexists(key_of(SPEND, 1), event_field("spend"))


def test_a_join_key_of_another_kind_is_found_when_the_plan_is_made(server: LocalRedis) -> None:
    with pytest.raises(NotYetSupported, match="the join key open is a bool"):
        ReadPlan.compile(make_contract(make_view(join_keys={"open": "bool"})))

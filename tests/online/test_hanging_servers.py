"""Servers that hang, or vanish without a word, while each read has a deadline of milliseconds: the next ones get by."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
from stored_rows import NOON_US, make_contract, make_view

from lockstep.errors import LockstepError
from lockstep.local import LocalRedis
from lockstep.online.reader import OnlineReader, ReadPlan
from lockstep.online.store import connect_async
from lockstep.settings import Settings
from tests.faults.wire import Wire
from tests.kinds import Clustered, Watched, hanging, until

PLAN = ReadPlan.compile(make_contract(make_view()))
DEADLINE = 0.05
AT_ONCE = 24


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[OnlineReader]:
    client = connect_async(settings)
    reader = OnlineReader(client, PLAN)
    try:
        yield reader
    finally:
        await reader.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await client.aclose()


async def is_answered(reader: OnlineReader, key: int = 1, deadline: float = DEADLINE) -> bool:
    try:
        async with asyncio.timeout(deadline):
            await reader.read({"customer_id": [key]}, [NOON_US])
    except (TimeoutError, LockstepError):
        return False
    return True


async def reads_until_answered(reader: OnlineReader, seconds: float, keys: range = range(1, 2)) -> int:
    """Return how many rounds of reads were not all answered in time, before one was."""
    async with asyncio.timeout(seconds):
        for given_up in range(10_000):
            if all([await is_answered(reader, key) for key in keys]):
                return given_up
            await asyncio.sleep(0.02)
    raise AssertionError


def test_a_failover_of_a_cluster_is_followed_also_if_the_primary_hangs(tmp_path: Path, settings: Settings) -> None:
    keys = range(12)

    async def follow(cluster: Clustered) -> None:
        async with reading(cluster.settings(settings)) as reader:
            assert all([await is_answered(reader, key, 5) for key in keys])
            replica = cluster.replicas[0].client
            with hanging(cluster.primaries[0].pid):
                assert not all([await is_answered(reader, key) for key in keys])
                await asyncio.to_thread(until, lambda: replica.info("replication")["role"] == "master", "a failover")
                await reads_until_answered(reader, 2.5, keys)

    with Clustered(tmp_path, replicas=1).running() as cluster:
        asyncio.run(follow(cluster))


def test_a_failover_is_followed_also_if_the_first_sentinel_hangs(tmp_path: Path, settings: Settings) -> None:
    async def follow(watched: Watched) -> None:
        async with reading(watched.settings(settings)) as reader:
            assert await is_answered(reader, deadline=5)
            replica = watched.replica.client
            with hanging(watched.primary.pid, watched.sentinels[0].pid):
                await asyncio.to_thread(until, lambda: replica.info("replication")["role"] == "master", "a failover")
                await reads_until_answered(reader, 5)

    with Watched(tmp_path).running() as watched:
        asyncio.run(follow(watched))


def test_a_connection_that_takes_longer_to_open_than_a_request_may_serves_the_next(
    server: LocalRedis, store: redis.Redis, store_settings: Settings
) -> None:
    def connections() -> int:
        return store.info("stats")["total_connections_received"]

    async def read() -> None:
        async with reading(store_settings) as reader:
            before = connections()
            with hanging(server.pid):
                assert not await is_answered(reader)
            await asyncio.sleep(0.2)  # the handshake is answered meanwhile
            assert await is_answered(reader)
            assert connections() == before + 1

    asyncio.run(read())


def test_an_outage_does_not_pile_up_connections(server: LocalRedis, store_settings: Settings) -> None:
    async def read(wire: Wire) -> None:
        async with reading(store_settings.model_copy(update={"redis_port": wire.port})) as reader:
            with hanging(server.pid):
                for _ in range(3):
                    assert not any(await asyncio.gather(*(is_answered(reader) for _ in range(AT_ONCE))))
            assert 0 < wire.connections <= 8
            assert all(await asyncio.gather(*(is_answered(reader, deadline=5) for _ in range(AT_ONCE))))

    with Wire(server.port) as wire:
        asyncio.run(read(wire))


def test_what_is_being_opened_ends_with_the_reader(server: LocalRedis, store_settings: Settings) -> None:
    async def close() -> None:
        with hanging(server.pid):
            async with reading(store_settings) as reader:
                waits = asyncio.create_task(reader.read({"customer_id": [1]}, [NOON_US]))
                await asyncio.sleep(0.05)
                async with asyncio.timeout(1):
                    await reader.aclose()
                with pytest.raises(LockstepError, match="connections were closed"):
                    await waits
                with pytest.raises(LockstepError, match="connections were closed"):
                    await reader.read({"customer_id": [1]}, [NOON_US])

    asyncio.run(close())


def test_connections_that_fell_silent_together_cost_one_deadline(server: LocalRedis, store_settings: Settings) -> None:
    async def read(wire: Wire) -> int:
        async with reading(store_settings.model_copy(update={"redis_port": wire.port})) as reader:
            with hanging(server.pid):  # so that many are opened
                asked = [asyncio.create_task(is_answered(reader, deadline=5)) for _ in range(AT_ONCE)]
                await asyncio.sleep(0.1)
            assert all(await asyncio.gather(*asked))
            assert wire.connections >= 8
            wire.swallow()
            return await reads_until_answered(reader, 5)

    with Wire(server.port) as wire:
        assert 0 < asyncio.run(read(wire)) < 4

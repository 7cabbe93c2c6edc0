"""A Redis of its own for the served log: the stream is written to it, drained from it, and nowhere else."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import redis
from pydantic import SecretStr

from lockstep.lake import Lake
from lockstep.local import LocalRedis
from lockstep.online.epoch import Epochs
from lockstep.online.reader import Reading
from lockstep.online.store import connect, connect_async, connect_log, connect_log_async
from lockstep.serving.log import ServedLog
from lockstep.serving.log_rows import SERVED_LOG, Served, stream_key
from lockstep.serving.request import Request
from lockstep.settings import Settings
from steps.drain_served_log import DrainServedLogInput, drain_served_log

PROJECT = "fraud"  # of the use case that is configured when none is named


@dataclass
class Stores:
    """The online store, and where the log is; `settings` name both."""

    settings: Settings
    online: redis.Redis
    log: redis.Redis


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalRedis, LocalRedis]]:
    homes = tmp_path_factory.mktemp("online"), tmp_path_factory.mktemp("log")
    with LocalRedis(homes[0]) as online, LocalRedis(homes[1]) as log:
        yield online, log


@pytest.fixture
def stores(servers: tuple[LocalRedis, LocalRedis], settings: Settings) -> Iterator[Stores]:
    """Two empty stores; the log's has a user with a password."""
    online, log = (redis.Redis(host="127.0.0.1", port=server.port) for server in servers)
    with online, log:
        online.flushall()
        log.flushall()
        log.acl_setuser("lockstep", enabled=True, passwords=["+a b/c"], keys=["*"], commands=["+@all"])
        url = SecretStr(f"redis://lockstep:a%20b%2Fc@127.0.0.1:{servers[1].port}/1")
        yield Stores(servers[0].settings(settings).model_copy(update={"served_log_url": url}), online, log)


def send(settings: Settings) -> int:
    """Serve two rows; return how many were sent."""
    request = Request("r", [1, 2], {"customer_id": [7, 8]}, [{}, {}])
    epochs = Epochs("i", {})
    rows = Served(request, 3, Reading(epochs, epochs, {}), np.ones((2, 1)), [0.5, 0.5], [[], []], "c", shadow=False)

    async def run() -> int:
        client = connect_log_async(settings)
        log = ServedLog(client, PROJECT, "m")
        log.offer(rows)
        await log.close()
        await client.aclose()
        return log.sent

    return asyncio.run(run())


def test_rows_go_to_the_log_s_redis_and_from_there_to_the_lake(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send(stores.settings) == 2
    with connect_log(stores.settings) as log:
        assert log.xlen(stream_key(PROJECT)) == 2
        assert (stores.online.dbsize(), stores.log.dbsize()) == (0, 0), "nor is it in the other database"
        for name, value in stores.settings.environment().items():
            monkeypatch.setenv(name, value)

        done = drain_served_log(DrainServedLogInput())

        assert done.rows == 2
        assert log.xlen(stream_key(PROJECT)) == 0
    lake = Lake.open(stores.settings, PROJECT)
    assert lake.table(SERVED_LOG).scan().to_arrow()["request_id"].to_pylist() == ["r", "r"]


def test_without_a_url_the_log_is_in_the_online_store(stores: Stores) -> None:
    plain = stores.settings.model_copy(update={"served_log_url": SecretStr("")})

    assert send(plain) == 2

    assert stores.online.xlen(stream_key(PROJECT)) == 2
    with connect_log(plain) as log:
        assert log.xlen(stream_key(PROJECT)) == 2
    assert stores.log.dbsize() == 0


def test_a_log_s_redis_that_is_gone_costs_rows_and_no_other_store_takes_them(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    gone = stores.settings.model_copy(update={"served_log_url": SecretStr("redis://lockstep:hidden@127.0.0.1:1/0")})

    assert send(gone) == 0

    assert "2 rows of the served log were not confirmed" in caplog.text
    assert "hidden" not in caplog.text
    assert stores.online.dbsize() == 0


def test_a_client_of_the_log_waits_no_longer_and_tries_no_more_often_than_one_of_the_online_store(
    stores: Stores,
) -> None:
    alike = "socket_timeout", "socket_connect_timeout"
    for of_log, of_store in ((connect_log, connect), (connect_log_async, connect_async)):
        log, online = (of(stores.settings).connection_pool.connection_kwargs for of in (of_log, of_store))
        assert {name: log[name] for name in alike} == {name: online[name] for name in alike}
        assert log["retry"].get_retries() == 0

"""Password, user, TLS, Sentinel and cluster: who is let in, and what is said to who is not."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr
from stored_rows import NOON_US, PROJECT, make_contract, make_rows, make_view
from tls import Authority, TlsProxy

from lockstep.errors import BadInput, LockstepError, Terminal, Transient
from lockstep.local import LocalRedis
from lockstep.local.ports import free_port
from lockstep.online.epoch import EpochStore
from lockstep.online.reader import OnlineReader, ReadPlan, read_online
from lockstep.online.store import answering, connect, connect_async
from lockstep.online.writer import check_store, read_back, write_rows
from lockstep.settings import Settings
from tests.kinds import Clustered, Watched

VIEW = make_view()
ROWS = make_rows(VIEW, *((key, 10, NOON_US, 5) for key in range(100)))
SECRET = "sesame, open"  # noqa: S105


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    with Clustered(tmp_path_factory.mktemp("cluster")).running() as running:
        yield running


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with Watched(tmp_path_factory.mktemp("watched")).running() as running:
        yield running


def serve(settings: Settings) -> None:
    """Write, read back and read as a transformer does."""
    with connect(settings) as client:
        assert check_store(client) == ""
        assert write_rows(client, PROJECT, VIEW, ROWS).accepted == 100
        assert read_back(client, PROJECT, VIEW, ROWS) == []
    found = read_online(settings, make_contract(VIEW), {"customer_id": list(range(101))}, [NOON_US] * 101)
    assert found.views[VIEW.name].status == ["present"] * 100 + ["missing"]


def refusal(settings: Settings) -> LockstepError:
    """Return what a writer and a reader are told, which is the same."""
    with pytest.raises(LockstepError) as writing, connect(settings) as client:
        EpochStore(client, PROJECT).read()
    with pytest.raises(LockstepError) as reading:
        read_online(settings, make_contract(VIEW), {"customer_id": [1]}, [NOON_US])
    assert (type(reading.value), reading.value.hint) == (type(writing.value), writing.value.hint)
    assert SECRET not in f"{writing.value} {reading.value}"
    return writing.value


def test_a_server_that_wants_a_password(store: redis.Redis, store_settings: Settings) -> None:
    store.config_set("requirepass", SECRET)
    try:
        serve(store_settings.model_copy(update={"redis_password": SecretStr(SECRET)}))
        assert "wants a password" in refusal(store_settings).hint
        wrong = refusal(store_settings.model_copy(update={"redis_password": SecretStr("wrong")}))
        assert isinstance(wrong, Terminal)
        assert "password is wrong" in wrong.hint
    finally:
        store.config_set("requirepass", "")


def test_a_cluster_that_wants_a_password(cluster: Clustered, settings: Settings) -> None:
    there = cluster.settings(settings)
    for server in cluster.servers:
        server.client.config_set("requirepass", SECRET)
    try:
        serve(there.model_copy(update={"redis_password": SecretStr(SECRET)}))
        assert "wants a password" in refusal(there).hint
        assert "password is wrong" in refusal(there.model_copy(update={"redis_password": SecretStr("wrong")})).hint
    finally:
        for server in cluster.servers:
            server.client.execute_command("AUTH", SECRET)
            server.client.config_set("requirepass", "")


def test_a_primary_behind_sentinel_that_wants_a_password(watched: Watched, settings: Settings) -> None:
    there = watched.settings(settings).model_copy(update={"redis_password": SecretStr(SECRET)})
    with watched.primary.client.client() as administrator:
        administrator.config_set("requirepass", SECRET)
        try:
            serve(there)
            assert "password is wrong" in refusal(there.model_copy(update={"redis_password": SecretStr("no")})).hint
        finally:
            administrator.config_set("requirepass", "")


def secured(settings: Settings, authority: Authority, **changed: object) -> Settings:
    certificate, key = authority.issue("client")
    tls = {"redis_tls": True, "redis_tls_ca": authority.ca}
    files = {"redis_tls_certificate": certificate, "redis_tls_key": key}
    return settings.model_copy(update={**tls, **files, **changed})


def test_a_server_that_speaks_tls(server: LocalRedis, settings: Settings, tmp_path: Path) -> None:
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    with TlsProxy(server.port, ours) as proxy:
        there = secured(settings, ours, redis_host="127.0.0.1", redis_port=proxy.port)
        serve(there)
        distrusted = refusal(there.model_copy(update={"redis_tls_ca": other.ca}))
        assert isinstance(distrusted, Terminal)
        assert "redis_tls_ca" in distrusted.hint
        misnamed = refusal(there.model_copy(update={"redis_host": "localhost"}))
        assert isinstance(misnamed, Terminal)
        assert "what its certificate names" in misnamed.hint
        unknown = there.model_copy(update={"redis_tls_certificate": None, "redis_tls_key": None})
        with pytest.raises(Transient, match="does not answer"), connect(unknown) as client:
            EpochStore(client, PROJECT).read()
        with pytest.raises(Transient), connect(there.model_copy(update={"redis_tls": False})) as client:
            EpochStore(client, PROJECT).read()


def test_a_cluster_that_speaks_tls(settings: Settings, tmp_path: Path) -> None:
    authority, cluster = Authority(tmp_path / "ours"), Clustered(tmp_path / "cluster")
    with ExitStack() as stack:
        proxies = [stack.enter_context(TlsProxy(server.port, authority)) for server in cluster.servers]
        for server, proxy in zip(cluster.servers, proxies, strict=True):
            server.options["cluster-announce-port"] = str(proxy.port)
            server.options["cluster-announce-bus-port"] = str(server.port + 10_000)
        stack.enter_context(cluster.running())
        nodes = tuple(f"127.0.0.1:{proxy.port}" for proxy in proxies)
        serve(secured(settings, authority, redis_mode="cluster", redis_nodes=nodes))


def test_a_mode_that_is_not_the_servers_is_named(
    cluster: Clustered, server: LocalRedis, store_settings: Settings, settings: Settings
) -> None:
    alone = store_settings.model_copy(update={"redis_mode": "cluster", "redis_nodes": (f"127.0.0.1:{server.port}",)})
    for there in (alone, settings.model_copy(update={"redis_port": cluster.primaries[0].port})):
        with pytest.raises(BadInput) as refused, connect(there) as client:
            write_rows(client, PROJECT, VIEW, ROWS)
        assert "redis_mode" in refused.value.hint
        with pytest.raises(BadInput) as refused:
            read_online(there, make_contract(VIEW), {"customer_id": list(range(100))}, [NOON_US] * 100)
        assert "redis_mode" in refused.value.hint


def test_a_service_that_the_sentinels_do_not_know_is_named(watched: Watched, settings: Settings) -> None:
    unknown = refusal(watched.settings(settings).model_copy(update={"redis_sentinel_service": "nobody"}))
    assert isinstance(unknown, Transient)
    assert "'nobody'" in str(unknown)


@pytest.mark.parametrize("mode", ["sentinel", "cluster"])
def test_nodes_of_which_none_is_there_are_worth_another_try(settings: Settings, mode: str) -> None:
    nodes = tuple(f"127.0.0.1:{free_port()}" for _ in range(2))
    nowhere = settings.model_copy(
        update={"redis_mode": mode, "redis_nodes": nodes, "redis_sentinel_service": "online"}
    )
    assert isinstance(refusal(nowhere), Transient)
    assert "redis_nodes" in refusal(nowhere).hint


def test_a_cluster_is_reached_by_the_one_node_of_several_that_is_there(cluster: Clustered, settings: Settings) -> None:
    there = cluster.settings(settings)
    nodes = (f"127.0.0.1:{free_port()}", there.redis_nodes[-1])
    serve(there.model_copy(update={"redis_nodes": nodes}))


def test_many_requests_at_once_are_each_answered(cluster: Clustered, settings: Settings) -> None:
    there = cluster.settings(settings)

    async def read() -> None:
        async with connect_async(there) as client:
            reader = OnlineReader(client, ReadPlan.compile(make_contract(VIEW)))
            keys = [[number, number + 1] for number in range(50)]
            with answering():
                found = await asyncio.gather(*(reader.read({"customer_id": pair}, [NOON_US] * 2) for pair in keys))
        assert [reading.views[VIEW.name].status for reading in found] == [["present"] * 2] * 50

    serve(there)
    asyncio.run(read())

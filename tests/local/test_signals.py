"""An interrupt leaves no process behind: everything here is real, the signals too."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lockstep.local.signals import ENDING, Ended, ending_on_signals, raise_if_ending

# However the tests are run (a shell's `&` ignores SIGINT, `nohup` SIGHUP), the program starts as in a terminal.
BEGIN = """
import pathlib, signal, sys, threading, time
from lockstep.local import LocalRedis, LocalService
from lockstep.local.child import Child
from lockstep.local.signals import ending_on_signals
from lockstep.settings import Settings
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
home = pathlib.Path(sys.argv[1])
"""


@contextmanager
def program(source: str, home: Path) -> Iterator[tuple[subprocess.Popen[str], Callable[[], str]]]:
    """Run it as a shell would, in a process group of its own; give it and what reads its next line."""
    command = [sys.executable, "-c", BEGIN + source, str(home)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, process_group=0
    ) as started:
        output = started.stdout
        assert output is not None
        try:
            yield started, lambda: output.readline().strip()
        finally:
            started.kill()


def state(pid: int) -> str:
    """Return the kernel's letter for it: R, S, T (stopped), Z (ended); empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    return state(pid) not in ("", "Z")


def gone(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_a_server_ends_with_a_starter_that_is_told_to_end(tmp_path: Path, number: int, exit_code: int) -> None:
    source = """
with ending_on_signals(), LocalRedis(home) as local:
    print(local.pid, flush=True)
    time.sleep(60)
"""
    with program(source, tmp_path) as (starter, line):
        pid = int(line())
        assert alive(pid)
        os.killpg(starter.pid, number)

        assert starter.wait(5) == exit_code
        assert gone(pid)

    assert (tmp_path / "redis" / "redis.pid").exists() == (number == signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_server_ends_even_with_a_starter_that_handles_no_signal(tmp_path: Path, number: int) -> None:
    source = "local = LocalRedis(home).start()\nprint(local.pid, flush=True)\ntime.sleep(60)\n"
    with program(source, tmp_path) as (starter, line):
        pid = int(line())
        os.killpg(starter.pid, number)

        assert starter.wait(5) == -number
        assert gone(pid)


def test_a_child_ends_with_its_starter_whatever_that_does_with_signals_itself(tmp_path: Path) -> None:
    source = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(Child("plain", ["sleep", "60"], home / "plain.log").pid, flush=True)
time.sleep(60)
"""
    with program(source, tmp_path) as (starter, line):
        pid = int(line())
        starter.kill()
        starter.wait()

        assert gone(pid)


def test_an_interrupt_during_the_start_leaves_no_server(tmp_path: Path) -> None:
    slow = tmp_path / "bin" / "redis-server"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    source = f"""
import os
os.environ["PATH"] = "{slow.parent}:" + os.environ["PATH"]
local = LocalRedis(home)
def tell():
    while local.pid is None:
        time.sleep(0.01)
    print(local.pid, flush=True)
threading.Thread(target=tell).start()
with ending_on_signals():
    try:
        local.start()
    finally:
        print(local.pid, flush=True)
"""
    with program(source, tmp_path) as (starter, line):
        pid = int(line())
        os.killpg(starter.pid, signal.SIGTERM)

        assert line() == "None"
        assert starter.wait(5) == 143
        assert gone(pid)


def test_a_ctrl_c_reaches_the_starter_alone_so_that_it_ends_its_servers_in_order(tmp_path: Path) -> None:
    source = """
with ending_on_signals(), LocalRedis(home) as local:
    try:
        print(local.pid, flush=True)
        time.sleep(60)
    finally:
        time.sleep(0.2)
        import redis
        print(redis.Redis(port=local.port).info("server")["process_id"], flush=True)
"""
    with program(source, tmp_path) as (starter, line):
        pid = line()
        os.killpg(starter.pid, signal.SIGINT)

        assert line() == pid
        assert starter.wait(5) == -signal.SIGINT


DEAF = """
with ending_on_signals({patience}):
    deaf = Child("deaf", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], home / "deaf.log")
    while "ready" not in deaf.last_lines():
        time.sleep(0.01)
    try:
        print(deaf.pid, flush=True)
        time.sleep(60)
    finally:
        print("stopping", flush=True)
        deaf.stop(grace={grace})
        print("stopped", flush=True)
"""


def test_a_second_signal_while_a_child_is_being_ended_changes_nothing(tmp_path: Path) -> None:
    with program(DEAF.format(patience=10.0, grace=1.0), tmp_path) as (starter, line):
        pid = int(line())
        starter.send_signal(signal.SIGTERM)
        assert line() == "stopping"
        for number in ENDING:
            starter.send_signal(number)
        time.sleep(0.3)
        assert alive(pid)

        assert line() == "stopped"
        assert starter.wait(5) == 143
        assert gone(pid, 0)


def test_a_second_signal_after_some_patience_ends_a_deaf_child_at_once(tmp_path: Path) -> None:
    with program(DEAF.format(patience=0.3, grace=60.0), tmp_path) as (starter, line):
        pid = int(line())
        starter.send_signal(signal.SIGTERM)
        assert line() == "stopping"
        time.sleep(0.5)
        starter.send_signal(signal.SIGHUP)

        assert line() == ""
        assert starter.wait(5) == 129
        assert gone(pid, 0)


def test_each_process_of_a_service_is_ended_though_every_wait_for_one_is_interrupted(tmp_path: Path) -> None:
    source = """
service = LocalService(Settings(home=home).resolved(), home, "fraud")
def tell():
    while len(service.pids) < 2:
        time.sleep(0.001)
    print(*service.pids.values(), flush=True)
threading.Thread(target=tell).start()
with ending_on_signals(patience=0.0):
    service.start()
"""
    with program(source, tmp_path) as (starter, line):
        predictor, transformer = map(int, line().split())
        for pid in (predictor, transformer):
            os.kill(pid, signal.SIGSTOP)  # it will not even hear that it should end
            while state(pid) != "T":
                time.sleep(0.01)
        starter.send_signal(signal.SIGINT)
        for pid in (transformer, predictor):
            time.sleep(0.5)
            assert alive(pid)
            starter.send_signal(signal.SIGINT)
            assert gone(pid, 2)

        assert starter.wait(5) == -signal.SIGINT


@pytest.fixture
def _as_in_a_terminal() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_as_in_a_terminal")
@pytest.mark.parametrize(
    ("number", "left_with"), [(2, "KeyboardInterrupt()"), (15, "SystemExit(143)"), (1, "SystemExit(129)")]
)
def test_inside_the_block_a_signal_is_no_failure_and_no_exit_and_outside_it_is_what_it_was(
    number: int, left_with: str
) -> None:
    before = [signal.getsignal(n) for n in ENDING]

    def block() -> None:
        with ending_on_signals():
            inside(number)

    with pytest.raises((KeyboardInterrupt, SystemExit)) as ended:
        block()

    assert repr(ended.value) == left_with
    assert [signal.getsignal(n) for n in ENDING] == before


def inside(number: int) -> None:
    with pytest.raises(Ended) as told:
        signal.raise_signal(number)
    assert not isinstance(told.value, Exception | SystemExit)
    raise told.value


def test_a_query_that_is_interrupted_is_no_failure_of_the_query(tmp_path: Path) -> None:
    source = """
import duckdb
with ending_on_signals(), duckdb.connect(config={"threads": 1}) as connection:
    print("querying", flush=True)
    connection.execute("SELECT sum(i * i % 7) FROM range(1000000000000) t(i)").fetchall()
"""
    with program(source, tmp_path) as (starter, line):
        assert line() == "querying"
        time.sleep(0.5)
        starter.send_signal(signal.SIGTERM)

        assert starter.wait(10) == 143


@pytest.mark.usefixtures("_as_in_a_terminal")
def test_a_signal_that_was_swallowed_ends_the_block_at_its_end_and_can_be_asked_for_before() -> None:
    def block() -> None:
        with ending_on_signals():
            with pytest.raises(Ended):
                signal.raise_signal(signal.SIGTERM)
            with pytest.raises(Ended, match="Terminated"):
                raise_if_ending()

    with pytest.raises(SystemExit) as ended:
        block()

    assert ended.value.code == 143
    raise_if_ending()  # the next block begins anew


@pytest.mark.usefixtures("_as_in_a_terminal")
def test_what_goes_wrong_without_a_signal_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="a failure"), ending_on_signals():
        raise ValueError("a failure")


@pytest.mark.usefixtures("_as_in_a_terminal")
def test_what_goes_wrong_long_after_a_signal_that_was_swallowed_stays_what_it_is() -> None:
    def block() -> None:
        with ending_on_signals(patience=0.05):
            with pytest.raises(Ended):
                signal.raise_signal(signal.SIGTERM)
            time.sleep(0.1)
            raise ValueError("a failure")

    with pytest.raises(ValueError, match="a failure"):
        block()


@pytest.mark.usefixtures("_as_in_a_terminal")
def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with ending_on_signals():
        signal.raise_signal(signal.SIGHUP)

    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.usefixtures("_as_in_a_terminal")
def test_outside_the_main_thread_nothing_changes() -> None:
    seen: list[object] = []

    def work() -> None:
        with ending_on_signals():
            seen.extend(signal.getsignal(number) for number in ENDING)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL]

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lockstep.local.ports import LOOPBACK, PortTaken, free_port, listens, on_usable_ports, usable_port

NOBODY = 2**22 + 1  # above the largest process id


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        listening.bind((LOOPBACK, 0))
        listening.listen()
        yield listening


def test_a_wanted_port_is_used_unless_another_listens_on_it(server: socket.socket) -> None:
    taken, free = server.getsockname()[1], free_port()

    assert usable_port(free) == free
    assert usable_port(taken) not in (0, taken)
    assert usable_port(0) > 0


def test_a_port_with_nothing_but_closed_connections_is_usable(server: socket.socket) -> None:
    port = server.getsockname()[1]
    with socket.create_connection((LOOPBACK, port)) as client:
        accepted, _ = server.accept()
        server.close()
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
        assert client.recv(1) == b""

    assert usable_port(port) == port


def test_whose_port_it_is_is_known(server: socket.socket) -> None:
    port = server.getsockname()[1]

    assert listens(os.getpid(), port)
    assert not listens(os.getpid(), free_port())
    with pytest.raises(PortTaken, match=f"another process listens on port {port}"):
        listens(os.getppid(), port)


def test_a_process_that_has_ended_listens_nowhere_and_is_not_told_that_its_port_is_taken(
    server: socket.socket,
) -> None:
    """A server that binds its port and then fails would be started anew on another port, and nobody told why it fails."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # a zombie: nobody has asked for its exit code

        for process in (ended.pid, NOBODY):
            assert not listens(process, server.getsockname()[1])


def test_who_listens_on_another_address_of_this_machine_takes_no_port_from_us() -> None:
    with socket.socket() as elsewhere:
        elsewhere.bind(("127.0.0.2", 0))
        elsewhere.listen()
        port = elsewhere.getsockname()[1]

        assert usable_port(port) == port
        assert not listens(NOBODY, port)


def test_who_listens_on_every_address_listens_on_ours() -> None:
    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))  # noqa: S104
        everywhere.listen()
        port = everywhere.getsockname()[1]

        assert usable_port(port) != port
        assert listens(os.getpid(), port)


def test_a_process_that_opens_and_closes_files_all_the_time_still_listens(server: socket.socket) -> None:
    program = (
        "import os, socket\nserver = socket.socket()\nserver.bind(('127.0.0.1', 0))\nserver.listen()\n"
        "print(server.getsockname()[1], flush=True)\n"
        "while True:\n    for number in [os.open('/dev/null', os.O_RDONLY) for _ in range(20)]: os.close(number)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as busy:
        assert busy.stdout is not None
        port = int(busy.stdout.readline())
        end = time.monotonic() + 0.3
        answers = set()
        while time.monotonic() < end:
            answers.add(listens(busy.pid, port))
        busy.kill()

    assert answers == {True}


@pytest.mark.parametrize(("lost", "calls"), [(0, 1), (1, 2), (2, 3)])
def test_a_lost_race_for_a_port_is_run_again(lost: int, calls: int) -> None:
    called = []

    def start() -> None:
        called.append(1)
        if len(called) <= lost:
            raise PortTaken("another was faster")

    on_usable_ports(start)

    assert len(called) == calls


def test_a_race_that_is_lost_three_times_is_given_up() -> None:
    called = []

    def start() -> None:
        called.append(1)
        raise PortTaken("another was faster")

    with pytest.raises(PortTaken, match="another was faster"):
        on_usable_ports(start)

    assert len(called) == 3

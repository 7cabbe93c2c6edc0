"""Find a port to listen on, and tell who listens on it: a port that is free now may be another's in a moment."""

import errno
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lockstep.errors import Transient

LOOPBACK = "127.0.0.1"

_TRIES = 3
# As /proc/net/tcp spells them, https://docs.kernel.org/networking/proc_net_tcp.html
_LISTENING = "0A"  # TCP_LISTEN
_HERE = ("0100007F", "00000000")  # 127.0.0.1, and every address


class PortTaken(Transient):
    """Somebody else took a port before the server that it was meant for came to listen on it."""


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def usable_port(wanted: int) -> int:
    """Return the wanted port unless it is taken; else, and for 0, a free one."""
    return wanted if wanted and not _taken(wanted) else free_port()


def on_usable_ports(start: Callable[[], None]) -> None:
    """Call `start`, which chooses its ports, again when somebody took one between its choice and its server's listening.

    Raises:
        PortTaken: that happened three times.
    """
    for _ in range(_TRIES - 1):
        try:
            start()
        except PortTaken:
            continue
        return
    start()


def says_taken(words: str) -> bool:
    """Whether a server's last words are that its port is taken."""
    return os.strerror(errno.EADDRINUSE).lower() in words.lower()


def listens(pid: int, port: int) -> bool:
    """Whether this process listens on a loopback port yet: only then is what answers there an answer of its own.

    Elsewhere than on Linux nobody can be asked, and it is taken for granted. A process that has ended listens nowhere.

    Raises:
        PortTaken: another process listens there. A server that finds its port taken need not end, so this does not wait
            for that.
    """
    if sys.platform != "linux":
        return True
    listening = _listening_sockets(port)
    if not listening:
        return False
    if not listening.isdisjoint(_open_files(pid)):  # looked at last: it holds what it listened on a moment ago
        return True
    if not _open_files(pid):  # it has ended, and what listened may have been its own
        return False
    raise PortTaken(f"another process listens on port {port}")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: the remains of closed connections do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
        except OSError as refused:
            return refused.errno == errno.EADDRINUSE  # whatever else is wrong with the port, the server will tell
    return False


def _listening_sockets(port: int) -> set[str]:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    addresses = {f"{address}:{port:04X}" for address in _HERE}
    return {f"socket:[{row[9]}]" for row in rows if row[3] == _LISTENING and row[1] in addresses}


def _open_files(pid: int) -> set[str]:
    """Return what a process has open; nothing once it has ended, or is about to."""
    found: set[str] = set()
    with suppress(OSError):  # it has ended
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # it has closed this one
                found.add(str(descriptor.readlink()))
    return found

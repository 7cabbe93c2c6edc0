"""One run at a time in a home folder: two would write one catalog, one ledger and one online store."""

import getpass
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from lockstep.clock import Clock
from lockstep.errors import BadInput

LOCK = ".lock"
HOLDER = ".lock.holder"


class Holder(BaseModel, frozen=True):
    """Who holds a home folder; `since` is the machine's time, whatever a replay's clock says."""

    pid: int
    user: str
    host: str
    since: datetime
    doing: str

    def __str__(self) -> str:
        return f"`{self.doing}` of {self.user}@{self.host}, process {self.pid},"


@contextmanager
def hold(home: Path, doing: str) -> Generator[None]:
    """Hold a home folder, which is made if need be, as long as the block runs.

    The lock is the kernel's, on `.lock`: it ends with its holder, whichever way that ends. The note beside it,
    `.lock.holder`, only says who that is; nobody asks it whether the folder is held.

    Args:
        home: the folder.
        doing: what it is held for, as its holder would recognize it: `lockstep demo`.

    Raises:
        BadInput: somebody holds it, or it cannot be locked; nothing in it was changed.
    """
    home = home.resolve()
    note = home / HOLDER
    with _locked(home):
        try:
            _write(note, Holder(pid=os.getpid(), user=_user(), host=_host(), since=Clock().now(), doing=doing))
            yield
        finally:
            note.unlink(missing_ok=True)  # while it is locked: a moment later it would be the next holder's


@contextmanager
def _locked(home: Path) -> Generator[None]:
    # Without flock filelock would fall back on the mere existence of a file, which a killed holder leaves behind.
    lock = FileLock(home / LOCK, fallback_to_soft=False)
    try:
        home.mkdir(parents=True, exist_ok=True)
        held = lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(_held(home), hint="wait for it, end it, or name another LOCKSTEP_HOME") from None
    except OSError as wrong:
        raise BadInput(
            f"{home} cannot be locked: {wrong}", hint="name a LOCKSTEP_HOME that you may write to, on a local disk"
        ) from wrong
    with held:
        yield


def _held(home: Path) -> str:
    try:
        holder = Holder.model_validate_json((home / HOLDER).read_bytes())
    except (OSError, ValidationError):  # not written yet, or by something else
        return f"somebody holds {home}"
    if holder.host == _host() and not _alive(holder.pid):
        # A killed one's note: the one who holds the folder now has not come to write its own yet.
        return f"somebody holds {home}"
    return f"{holder} has held {home} since {holder.since:%Y-%m-%dT%H:%M:%SZ}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # it is another user's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _write(note: Path, holder: Holder) -> None:
    """Write the note so that nobody reads half of it."""
    partial = note.with_suffix(".partial")
    partial.write_text(holder.model_dump_json() + "\n")
    partial.replace(note)


def _user() -> str:
    try:
        return getpass.getuser()
    except KeyError:  # a pod may run as a number that no user has
        return str(os.getuid())


def _host() -> str:
    return socket.gethostname()

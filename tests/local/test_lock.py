import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lockstep.errors import BadInput
from lockstep.local.lock import HOLDER, LOCK, hold

HOLDING = """
import pathlib, subprocess, sys, time
from lockstep.local.lock import hold
with hold(pathlib.Path(sys.argv[1]), "lockstep demo"):
    child = subprocess.Popen(["sleep", "60"])
    print(child.pid, flush=True)
    time.sleep(60)
"""


@contextmanager
def another_process_holding(home: Path) -> Iterator[tuple[int, int]]:
    """Give the holder's process id and that of a child of it."""
    command = [sys.executable, "-c", HOLDING, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            yield holder.pid, child
        finally:
            holder.kill()
            os.kill(child, signal.SIGKILL)


def refusal(home: Path) -> BadInput:
    with pytest.raises(BadInput) as refused, hold(home, "lockstep run"):
        pass
    return refused.value


def contents(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}


def test_a_second_process_is_told_who_holds_the_home_and_changes_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_text("rows")
    before = datetime.now(UTC) - timedelta(seconds=1)

    with another_process_holding(tmp_path) as (pid, _):
        held = contents(tmp_path)
        refused = refusal(tmp_path)
        assert contents(tmp_path) == held

    note = json.loads(held[HOLDER])
    assert (note["pid"], note["doing"]) == (pid, "lockstep demo")
    since = datetime.fromisoformat(note["since"])
    assert before <= since <= datetime.now(UTC)
    assert str(refused) == (
        f"`lockstep demo` of {note['user']}@{note['host']}, process {pid}, has held {tmp_path} since "
        f"{since:%Y-%m-%dT%H:%M:%SZ}\n\nHint: wait for it, end it, or name another LOCKSTEP_HOME"
    )
    assert held["catalog.db"] == b"rows"


def test_a_killed_holder_s_lock_is_gone_even_if_a_child_of_it_lives_on(tmp_path: Path) -> None:
    with another_process_holding(tmp_path) as (pid, child):
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.kill(child, 0)
        assert json.loads((tmp_path / HOLDER).read_text())["pid"] == pid

        with hold(tmp_path, "lockstep run"):
            assert json.loads((tmp_path / HOLDER).read_text())["pid"] == os.getpid()
            assert f"process {os.getpid()}, has held" in str(refusal(tmp_path))

    assert not (tmp_path / HOLDER).exists()


def test_a_home_is_made_held_once_and_given_back(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    for _ in range(2):
        with hold(home, "lockstep demo"):
            assert f"has held {home} since" in str(refusal(home))
        assert contents(home) == {LOCK: b""}


def test_a_home_is_given_back_when_the_work_in_it_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), hold(tmp_path, "lockstep demo"):
        raise KeyboardInterrupt

    with hold(tmp_path, "lockstep demo"):
        pass
    assert contents(tmp_path) == {LOCK: b""}


def dead_process() -> int:
    with subprocess.Popen(["true"]) as done:
        pass
    return done.pid


@pytest.mark.parametrize(
    "note", [None, b"", b'{"pid": 1, "us', b"\xff\xfe", b"[]", b'{"pid": 7}', "of a dead process"]
)
def test_a_note_that_does_not_tell_who_holds_the_home_is_not_believed(
    tmp_path: Path, note: bytes | str | None
) -> None:
    with hold(tmp_path, "lockstep demo"):
        mine = json.loads((tmp_path / HOLDER).read_text())
        (tmp_path / HOLDER).unlink()
        if isinstance(note, str):
            (tmp_path / HOLDER).write_text(json.dumps(mine | {"pid": dead_process()}))
        elif note is not None:
            (tmp_path / HOLDER).write_bytes(note)

        assert str(refusal(tmp_path)) == (
            f"somebody holds {tmp_path}\n\nHint: wait for it, end it, or name another LOCKSTEP_HOME"
        )


def test_the_note_of_another_machine_s_process_is_believed(tmp_path: Path) -> None:
    with hold(tmp_path, "lockstep demo"):
        note = json.loads((tmp_path / HOLDER).read_text()) | {"pid": dead_process(), "host": "elsewhere"}
        (tmp_path / HOLDER).write_text(json.dumps(note))

        assert f"@elsewhere, process {note['pid']}, has held {tmp_path} since" in str(refusal(tmp_path))


def test_a_user_without_a_name_holds_as_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)

    with hold(tmp_path, "lockstep demo"):
        assert json.loads((tmp_path / HOLDER).read_text())["user"] == "54321"


def test_a_home_that_cannot_be_locked_says_why(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")

    assert str(refusal(tmp_path / "home")) == (
        f"{tmp_path}/home cannot be locked: [Errno 17] File exists: '{tmp_path}/home'\n\n"
        "Hint: name a LOCKSTEP_HOME that you may write to, on a local disk"
    )

"""A demo that is asked to end leaves nothing running."""

import os
import signal
import time
from pathlib import Path

from demo_process import OTHERS_WARNINGS, start_demo

pytestmark = OTHERS_WARNINGS


def processes_of(home: Path) -> list[str]:
    """The command lines of running processes that name a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (entry / "environ").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z" and (str(home) in words or str(home) in environment):
                found.append(words)
    return found


def test_an_interrupted_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    interrupt(tmp_path, signal.SIGINT, "simulate ...", 1)


def interrupt(tmp_path: Path, number: signal.Signals, stage: str, processes: int) -> None:
    """Interrupt a demo at a stage at which it has so many processes, and look for what it left."""
    demo = start_demo(tmp_path, "--size", "100", "--days", "1", PYTHONUNBUFFERED="1")
    assert demo.stdout is not None
    assert any(line.startswith(stage) for line in demo.stdout), "the stage begins"
    assert len(processes_of(tmp_path)) == processes, "the demo, and a model's two servers once it is served"
    redis = Path("/proc") / (tmp_path / "demo" / "redis" / "redis.pid").read_text().strip()
    assert redis.exists()

    demo.send_signal(number)
    said, _ = demo.communicate(timeout=60)

    assert demo.returncode == 128 + number, said
    # One that was just being started is told by the kernel that its starter has ended, and ends a moment later.
    ends = time.monotonic() + 30
    while processes_of(tmp_path) and time.monotonic() < ends:
        time.sleep(0.1)
    assert processes_of(tmp_path) == []
    assert not redis.exists()

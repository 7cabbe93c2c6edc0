"""Bars go on while a step runs, though its output goes to its log."""

import os
import time
from pathlib import Path

import pytest

from pipelines._progress import Bars, reporter


def drawn(terminal: int, seconds: float) -> bytes:
    """What comes to be seen on a terminal within some seconds."""
    end, seen = time.monotonic() + seconds, b""
    while time.monotonic() < end:
        try:
            seen += os.read(terminal, 65_536)
        except BlockingIOError:
            time.sleep(0.01)
    return seen


def test_frames_keep_coming_while_the_stream_s_descriptor_is_a_log_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal, side = os.openpty()
    os.set_blocking(terminal, False)
    try:
        with os.fdopen(side, "w") as stream, (tmp_path / "step.log").open("w+b") as log:
            told = reporter(stream)
            assert isinstance(told, Bars)
            with told.stage("live", 2) as stage:
                drawn(terminal, 0.1)
                kept = os.dup(stream.fileno())
                os.dup2(log.fileno(), stream.fileno())  # as while a step runs
                stage.advance()
                during = drawn(terminal, 0.6)
                os.dup2(kept, stream.fileno())
                os.close(kept)
            assert during.count(b"1/2") > 2
            assert log.read() == b""
            assert stream.isatty(), "the stage closes its own descriptor and no other"
    finally:
        os.close(terminal)

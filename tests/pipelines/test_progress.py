"""Bars go on while a step runs, though its output goes to its log."""

import os
import time
from collections.abc import Generator
from io import StringIO
from pathlib import Path
from typing import TextIO

import pytest

from pipelines._commands.progress import Bars, node_reporter, reporter


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


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Generator[tuple[int, TextIO]]:
    """A terminal, and the stream that is drawn on it."""
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal, side = os.openpty()
    os.set_blocking(terminal, False)
    with os.fdopen(side, "w") as stream:
        yield terminal, stream
    os.close(terminal)


def test_on_a_terminal_the_nodes_that_run_are_shown_and_those_that_ended_stay(screen: tuple[int, TextIO]) -> None:
    terminal, stream = screen
    with node_reporter(stream) as nodes:
        nodes.begin("plan")
        nodes.begin("write[0]")
        both = drawn(terminal, 0.5)
        nodes.end("plan", "Succeeded plan")
        drawn(terminal, 0.3)
        one = drawn(terminal, 0.5)
    assert (b"plan" in both, b"write[0]" in both) == (True, True)
    assert (b"plan" in one, b"write[0]" in one) == (False, True)
    assert b"Succeeded" not in both


def test_while_somebody_is_asked_nothing_is_drawn_and_lines_come_afterwards(screen: tuple[int, TextIO]) -> None:
    terminal, stream = screen
    with node_reporter(stream) as nodes:
        nodes.begin("approve")
        drawn(terminal, 0.3)
        with nodes.paused():
            drawn(terminal, 0.2)
            nodes.end("other", "Succeeded other")
            meanwhile = drawn(terminal, 0.4)
        after = drawn(terminal, 0.4)
    assert (meanwhile, b"Succeeded other\r\n" in after) == (b"", True)


def test_a_file_has_a_line_for_each_node_that_ended_and_nothing_else() -> None:
    told = StringIO()
    with node_reporter(told) as nodes, nodes.paused():
        nodes.begin("plan")
        nodes.end("plan", "Succeeded plan")
        nodes.end("group", "")
    with node_reporter(told, quiet=True) as nodes:
        nodes.end("plan", "nobody wants to know")
    assert told.getvalue() == "Succeeded plan\n"

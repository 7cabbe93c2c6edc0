"""What a person sees of long work: bars on a terminal, plain lines in a pod or a file."""

import os
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Protocol, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Stage(Protocol):
    """One piece of work under way."""

    def advance(self) -> None:
        """Note that one more of its parts is done."""

    def say(self, line: str) -> None:
        """Tell something worth knowing."""


class Reporter(Protocol):
    """Where progress is told."""

    def stage(self, name: str, parts: int = 0) -> AbstractContextManager[Stage]:
        """Return the context of a stage; `parts` is how often it will advance, 0 where that is not known."""
        ...


class Lines:
    """Tells plain lines: the begin and end of a stage, and every quarter of its parts.

    Args:
        tell: takes a line.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    @contextmanager
    def stage(self, name: str, parts: int = 0) -> Generator[Stage]:
        """Tell of one stage; one that fails has no end."""
        started = time.monotonic()
        self._tell(f"{name} ...")
        yield _LineStage(self._tell, name, parts)
        self._tell(f"{name} done in {time.monotonic() - started:.1f} s")


class _LineStage:
    def __init__(self, tell: Callable[[str], None], name: str, parts: int) -> None:
        self._name, self._parts, self._done = name, parts, 0
        self.say = tell

    def advance(self) -> None:
        self._done += 1
        if self._parts and self._done * 4 // self._parts > (self._done - 1) * 4 // self._parts:
            self.say(f"{self._name}: {self._done} of {self._parts}")


class Bars:
    """Draws one bar a stage; what is said appears above them.

    Args:
        stream: the terminal's. It is drawn on by way of a descriptor of our own: a step that runs meanwhile has that of the
            stream sent to its log.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextmanager
    def stage(self, name: str, parts: int = 0) -> Generator[Stage]:
        """Draw one stage."""
        columns = [SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description:<18}")]
        columns += [BarColumn(), MofNCompleteColumn()] if parts else []
        with (
            os.fdopen(os.dup(self._stream.fileno()), "w", encoding=self._stream.encoding) as terminal,
            Progress(*columns, TimeElapsedColumn(), console=Console(file=terminal, highlight=False)) as progress,
        ):
            task = progress.add_task(name, total=parts or None)
            yield _BarStage(progress, task)
            progress.update(task, total=parts or 1, completed=parts or 1)


class _BarStage:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self) -> None:
        self._progress.advance(self._task)

    def say(self, line: str) -> None:
        self._progress.console.print(f"  {line}", markup=False)


class Nodes(Protocol):
    """Where it is told which nodes of a run begin and end."""

    def begin(self, name: str) -> None:
        """Note that a node runs."""

    def end(self, name: str, line: str) -> None:
        """Note that it does not any more, and tell the line, if there is one."""

    def paused(self) -> AbstractContextManager[None]:
        """Return a context in which nothing is drawn: somebody is asked something."""
        ...


class NodeLines:
    """Tells a line for each node that has ended.

    Args:
        tell: takes a line.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def begin(self, name: str) -> None:
        """Tell nothing."""

    def end(self, _name: str, line: str) -> None:
        """Tell a line."""
        if line:
            self._tell(line)

    def paused(self) -> AbstractContextManager[None]:
        """Change nothing."""
        return nullcontext()


class NodeBars:
    """Draws a row for each node that runs; lines of those that have ended appear above."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._kept: list[str] | None = None
        self._lock = Lock()

    def begin(self, name: str) -> None:
        """Draw a row."""
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=None)

    def end(self, name: str, line: str) -> None:
        """Remove the row."""
        with self._lock:
            if line and self._kept is not None:
                self._kept.append(line)
            elif line:
                self._print(line)
            if name in self._tasks:
                self._progress.remove_task(self._tasks.pop(name))

    @contextmanager
    def paused(self) -> Generator[None]:
        """Draw nothing meanwhile; lines come afterwards."""
        with self._lock:
            self._kept = []
            self._progress.stop()
        try:
            yield
        finally:
            with self._lock:
                for line in self._kept:
                    self._print(line)
                self._kept = None
                self._progress.start()

    def _print(self, line: str) -> None:
        self._progress.console.print(line, markup=False, soft_wrap=True)


@contextmanager
def node_reporter(stream: TextIO, *, quiet: bool = False) -> Generator[Nodes]:
    """Give rows for a terminal, and plain lines for anything else.

    Args:
        stream: takes them. A terminal is drawn on by way of a descriptor of our own, as `Bars` does.
        quiet: whether nothing is to be told at all.
    """
    if quiet or not stream.isatty():
        yield NodeLines(lambda line: None if quiet else click.echo(line, file=stream))
        return
    with (
        os.fdopen(os.dup(stream.fileno()), "w", encoding=stream.encoding) as terminal,
        Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(file=terminal, highlight=False),
            transient=True,
        ) as progress,
    ):
        yield NodeBars(progress)


def reporter(stream: TextIO) -> Reporter:
    """Return bars for a terminal, and plain lines for anything else."""
    return Bars(stream) if stream.isatty() else Lines(lambda line: click.echo(line, file=stream))

"""What has become of a run so far, and who is told of it."""

import time
from threading import Lock
from typing import Any, Protocol

from pipelines._run.results import Node, Outcome


class Watch(Protocol):
    """Who is told what becomes of a run, from one thread at a time."""

    def started(self, name: str) -> None:
        """A script was begun, or a person is asked for an approval."""

    def ended(self, node: Node) -> None:
        """A node has ended."""


class Record:
    """The nodes of a run, in the order they end.

    Args:
        watch: told of each.
    """

    def __init__(self, watch: Watch) -> None:
        self.nodes: list[Node] = []
        self._watch = watch
        self._lock = Lock()

    def start(self, name: str) -> None:
        """Tell that a node runs."""
        with self._lock:
            self._watch.started(name)

    def end(self, name: str, template: str, ended: Outcome, *, since: float, **more: Any) -> Outcome:
        """Keep how a node ended, and return it; `since` is when it began, on the clock `time.perf_counter`."""
        seconds = round(time.perf_counter() - since, 3)
        node = Node(name, template, ended.phase, ended.exit_code, ended.outputs, seconds=seconds, **more)
        with self._lock:
            self.nodes.append(node)
            self._watch.ended(node)
        return ended

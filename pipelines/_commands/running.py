"""What `lockstep run` shows: a line a node as it ends, what runs now on a terminal, and why a run failed."""

import sys
import uuid
from datetime import UTC, datetime

import click

from lockstep.local.lock import hold
from lockstep.local.signals import ending_on_signals
from lockstep.settings import Settings
from pipelines import local
from pipelines._commands.progress import Nodes, node_reporter
from pipelines._commands.telling import node_line, tell_end
from pipelines._project import manifests_root
from pipelines._run.results import FAILED, GROUP, SUCCEEDED, Node


class _Shown:
    """Shows a run as it goes on, and asks who sits at the terminal."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def started(self, name: str) -> None:
        """Show that a node runs."""
        self._nodes.begin(name)

    def ended(self, node: Node) -> None:
        """Tell how a node ended, but for a group that adds nothing to what was told of its parts."""
        told = node.kind != GROUP or node.phase not in (SUCCEEDED, FAILED)
        self._nodes.end(node.name, node_line(node) if told else "")

    def ask(self, question: local.Question) -> str:
        """Ask a person what a suspended node waits for; there is no default."""
        with self._nodes.paused():
            for name, value in question.given.items():
                click.echo(f"  {name} = {value}")
            words = f"{question.node} waits for {question.parameter}"
            if question.description:
                words += f" ({question.description})"
            return click.prompt(words, type=click.Choice(question.values) if question.values else str)


def run_committed(
    name: str,
    parameters: dict[str, str],
    approvals: dict[str, str],
    *,
    jobs: int,
    isolate: bool,
    retry_wait: float,
    as_json: bool,
) -> int:
    """Run a committed workflow, show how it went, and return its exit code."""
    manifest = local.load_template(manifests_root(), name)
    library = local.load_library(manifests_root(), manifest)
    home = Settings.load().home
    logs = home / "runs" / _run_name(manifest["metadata"]["name"])
    somebody = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)) and not as_json
    with hold(home, f"lockstep run {name}"), ending_on_signals(), node_reporter(sys.stdout, quiet=as_json) as nodes:
        shown = _Shown(nodes)
        ended = local.run_workflow(
            manifest,
            parameters,
            logs_dir=logs,
            library=library,
            jobs=jobs,
            isolate=isolate,
            watch=shown,
            terms=local.Terms(retry_wait, approvals, shown.ask if somebody else None),
        )
    return tell_end(ended, as_json=as_json)


def _run_name(workflow: str) -> str:
    return f"{workflow}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:5]}"

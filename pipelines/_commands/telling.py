"""What the console command tells of a run and its nodes, on this machine or in a cluster."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from pipelines._run.results import Node, Run

LAST_LINES = 20


def node_line(node: Node) -> str:
    """Return the line that a node is told in."""
    why = next(iter(node.message.splitlines()), "")
    return f"{node.phase:9} {node.seconds:7.1f} s  {node.name}{f'  ({why})' if why else ''}"


def tell_end(ended: Run, *, as_json: bool) -> int:
    """Print the outputs of a run that succeeded, or which node failed and how its log ends; return its exit code."""
    if as_json:
        click.echo(json.dumps(asdict(ended), indent=2, default=str))
    elif ended.succeeded:
        for output, value in ended.outputs.items():
            click.echo(f"{output} = {value}")
        click.echo(f"{ended.name} succeeded")
    else:
        _explain(ended)
    return ended.exit_code


def _explain(ended: Run) -> None:
    failed = ended.failed
    if failed is None:  # pragma: no cover - a run without a failed node succeeds
        return
    code = "" if failed.exit_code is None else f", exit code {failed.exit_code}"
    click.echo(f"{ended.name} failed at {failed.name}{code}: {failed.message}", err=True)
    if failed.log is not None and failed.log.exists():
        for line in _last_lines(failed.log):
            click.echo(f"  | {line}", err=True)
        click.echo(f"log: {failed.log}", err=True)


def _last_lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]

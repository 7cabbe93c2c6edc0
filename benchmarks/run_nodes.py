"""What `lockstep run` adds to a node: warm processes against a fresh one for each pod.

The steps do nothing, so that the wall time over the nodes is what a node costs: reading its inputs, finding its function,
checking both sides with pydantic, writing its outputs and its log. What is done once is not counted: two first nodes, at the
same time where there are two jobs, have each process import what steps import. The limit is the 0.3 s that a node may cost.
"""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks._table import show
from pipelines._manifest.subset import OUTPUTS
from pipelines.local import Node, run_workflow

LIMIT = 0.3
FIRST = ("first", "also-first")
STEP = """
import time
from hera.workflows.io import Input, Output
from steps._step import step

class NothingInput(Input):
    n: int
    rest: float = 0

class NothingOutput(Output):
    n: int

@step()
def nothing(given: NothingInput) -> NothingOutput:
    time.sleep(given.rest)
    return NothingOutput(n=given.n)
"""
HEADINGS = {"case": "seconds a node", "ours": "ours", "peer": "peer", "limit": "limit", "ratio": "ratio"}


def manifest(nodes: int, *, chained: bool) -> dict[str, Any]:
    """A DAG of so many nodes after two first ones, each of which waits for the one before, or for the first ones alone."""
    script: Mapping[str, Any] = {
        "name": "nothing",
        "inputs": {"parameters": [{"name": "n"}, {"name": "rest", "default": "0"}]},
        "outputs": {"parameters": [{"name": "n", "valueFrom": {"path": f"{OUTPUTS}n"}}]},
        "script": {
            "command": ["python"],
            "args": ["-m", "hera.workflows.runner", "-e", "benchmark_steps.nothing:nothing"],
            "source": "{{inputs.parameters}}",
        },
    }

    def task(name: str, depends: str, **given: str) -> dict[str, Any]:
        arguments = [{"name": parameter, "value": value} for parameter, value in given.items()]
        return {"name": name, "template": "nothing", "depends": depends, "arguments": {"parameters": arguments}}

    first = " && ".join(f"{name}.Succeeded" for name in FIRST)
    tasks = [task(name, "", n="0", rest="0.3") for name in FIRST]
    tasks += [task(f"n{n}", f"n{n - 1}.Succeeded" if chained and n else first, n=str(n)) for n in range(nodes)]
    return {
        "kind": "WorkflowTemplate",
        "metadata": {"name": "benchmark"},
        "spec": {"entrypoint": "main", "templates": [{"name": "main", "dag": {"tasks": tasks}}, script]},
    }


class Stopwatch:
    """Takes the time from the end of the first nodes to that of the last."""

    def __init__(self) -> None:
        self._first = self._last = 0.0

    def started(self, name: str) -> None:
        """Take no notice."""

    def ended(self, node: Node) -> None:
        """Take the time."""
        self._last = time.monotonic()
        if node.name in FIRST:
            self._first = self._last

    @property
    def seconds(self) -> float:
        """Between them."""
        return self._last - self._first


def a_node(nodes: int, repeats: int, *, chained: bool, **how: Any) -> float:
    """Return the wall seconds a node, the median of some runs."""
    taken: list[float] = []
    for _ in range(repeats):
        watch = Stopwatch()
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            logs = Path(folder) / "run"
            ended = run_workflow(manifest(nodes, chained=chained), {}, logs_dir=logs, watch=watch, **how)
        if not ended.succeeded or len(ended.nodes) != nodes + len(FIRST):
            raise click.ClickException(f"the run failed: {ended.failed}")
        taken.append(watch.seconds / nodes)
    return median(taken)


@click.command()
@click.option("--quick", is_flag=True, help="Fewer nodes, once.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
def main(*, quick: bool, json_file: Path | None) -> None:
    """Print wall seconds a node: ours warm, the peer with a process a pod, the limit, and how many times less ours takes."""
    nodes, fresh, repeats = (20, 1, 1) if quick else (200, 4, 3)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-steps-") as folder:
        package = Path(folder) / "benchmark_steps"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "nothing.py").write_text(STEP)
        sys.path.insert(0, folder)
        os.environ.setdefault("LOCKSTEP_USE_CASE", "feature_repo")
        for case, chained, jobs in (
            ("one after the other, in this process", True, 1),
            ("one after the other, two workers", True, 2),
            ("at the same time, two workers", False, 2),
        ):
            ours = a_node(nodes, repeats, chained=chained, jobs=jobs)
            peer = a_node(fresh, repeats, chained=chained, jobs=jobs, isolate=True)
            rows.append(
                {
                    "case": case,
                    "ours": round(ours, 4),
                    "peer": round(peer, 3),
                    "limit": LIMIT,
                    "ratio": round(peer / ours),
                }
            )
    show(rows, HEADINGS, json_file)
    if any(row["ours"] > LIMIT for row in rows):
        raise click.ClickException(f"a node costs more than {LIMIT} s")


if __name__ == "__main__":
    main()

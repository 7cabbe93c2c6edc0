"""`lockstep run`: interpret a rendered WorkflowTemplate on this machine, without a cluster.

What runs is the committed YAML, not the Hera code, so a laptop and a cluster can only differ in what a cluster adds: pods,
retries, locks, limits. Those are accepted and not acted on; every other construct is refused before anything runs.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lockstep.errors import BadInput
from pipelines._committed import load_template
from pipelines._interpreter import Interpreter, Node, Run
from pipelines._lint import lint
from pipelines._parameters import arguments
from pipelines._subset import refusals


def run_workflow(
    manifest: Mapping[str, Any],
    parameters: Mapping[str, str],
    *,
    logs_dir: Path,
    on_node: Callable[[Node], None] | None = None,
) -> Run:
    """Run a WorkflowTemplate in this process.

    Args:
        manifest: the rendered document.
        parameters: workflow parameters by name.
        logs_dir: takes one log a script; its name is the run's name.
        on_node: told of each node as it ends.

    Raises:
        BadInput: the manifest holds what is not interpreted here or references that do not hold; a parameter is unknown,
            missing, or not what its declaration allows; a time has no zone, or a window is reversed.
    """
    _refuse(manifest)
    values = arguments(manifest, parameters)
    logs_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lockstep-run-") as scratch:
        return Interpreter(manifest, values, Path(scratch), logs_dir, on_node).run()


def _refuse(manifest: Mapping[str, Any]) -> None:
    name = manifest.get("metadata", {}).get("name", "?")
    if manifest.get("kind") != "WorkflowTemplate":
        raise BadInput(f"{name!r} is a {manifest.get('kind')}", hint="run the WorkflowTemplate it refers to")
    for refusal in refusals(manifest):
        where = f"template {refusal.template!r}" if refusal.template else f"workflow {name!r}"
        raise BadInput(
            f"{where} uses {refusal.construct}, which `lockstep run` does not interpret",
            hint="the rendered subset of Argo is listed in pipelines/_subset.py",
        )
    for problem in lint(manifest):
        raise BadInput(f"workflow {name!r}, {problem.where}: {problem.what}", hint=problem.hint)


__all__ = ["Node", "Run", "load_template", "run_workflow"]

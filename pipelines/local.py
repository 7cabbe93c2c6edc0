"""`lockstep run`: interpret a rendered WorkflowTemplate on this machine, without a cluster.

What runs is the committed YAML, not the Hera code, so a laptop and a cluster can only differ in what a cluster adds: images,
accounts, limits, deadlines. Those are accepted and not acted on; every other construct is refused before anything runs.
"""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lockstep.errors import BadInput
from pipelines._checks.lint import lint
from pipelines._manifest.calls import Templates
from pipelines._manifest.committed import Library, load_library, load_template
from pipelines._manifest.parameters import arguments
from pipelines._manifest.subset import refusals
from pipelines._run.approvals import Question, check_approvals
from pipelines._run.crew import Alone, Threads
from pipelines._run.interpreter import Interpreter
from pipelines._run.leaves import Leaves, Terms
from pipelines._run.pods import InProcess, Isolated, Pods, Workers
from pipelines._run.record import Record, Watch
from pipelines._run.results import Node, Run
from pipelines._run.turns import Turns


class _Nobody:
    """Is told of a run and keeps it to itself."""

    def started(self, name: str) -> None:
        """Do nothing."""

    def ended(self, node: Node) -> None:
        """Do nothing."""


def run_workflow(
    manifest: Mapping[str, Any],
    parameters: Mapping[str, str],
    *,
    logs_dir: Path,
    library: Library | None = None,
    jobs: int = 1,
    isolate: bool = False,
    watch: Watch | None = None,
    terms: Terms | None = None,
) -> Run:
    """Run a WorkflowTemplate on this machine.

    Args:
        manifest: the rendered document.
        parameters: workflow parameters by name.
        logs_dir: takes one log a script; its name is the run's name.
        library: WorkflowTemplates by name, of which it may refer to some.
        jobs: how many pods run at a time; more than one run in as many warm processes, one in this process.
        isolate: whether each pod runs in a fresh process instead, by the rendered command.
        watch: told of each node as it begins and ends.
        terms: how retries and approvals are dealt with.

    Raises:
        BadInput: the manifest holds what is not interpreted here or references that do not hold; a parameter is unknown,
            missing, or not what its declaration allows; a time has no zone, or a window is reversed.
    """
    terms = terms or Terms()
    library = library or {}
    _refuse(manifest, library)
    templates = Templates(manifest, library)
    reached = {
        name for own in templates.documents[templates.own] for name in templates.reached_from((templates.own, own))
    }
    for document in sorted({document for document, _ in reached} - {templates.own}):
        _refuse(library[document], library)
    check_approvals(terms.approvals, templates, reached)
    values = arguments(manifest, parameters)
    logs_dir.mkdir(parents=True, exist_ok=True)
    at_once = min(jobs, manifest["spec"].get("parallelism", jobs))
    with tempfile.TemporaryDirectory(prefix="lockstep-run-") as scratch, ExitStack() as stack:
        crew = Alone() if at_once == 1 else Threads()
        stack.callback(crew.stop)
        pods = _pods(at_once, Path(scratch), isolate=isolate)
        stack.callback(pods.stop)
        turns, record = Turns(), Record(watch or _Nobody())
        stack.callback(turns.stop)
        leaves = Leaves(Path(scratch), logs_dir, record=record, crew=crew, pods=pods, turns=turns, terms=terms)
        run = Interpreter(
            manifest, templates, values, logs_dir.name, leaves=leaves, record=record, crew=crew, turns=turns
        )
        return crew.lead(run.run)


def _pods(jobs: int, scratch: Path, *, isolate: bool) -> Pods:
    if isolate:
        return Isolated(jobs)
    return InProcess() if jobs == 1 else Workers(jobs, scratch)


def _refuse(manifest: Mapping[str, Any], library: Library) -> None:
    name = manifest.get("metadata", {}).get("name", "?")
    if manifest.get("kind") != "WorkflowTemplate":
        raise BadInput(f"{name!r} is a {manifest.get('kind')}", hint="run the WorkflowTemplate it refers to")
    for refusal in refusals(manifest):
        where = f"template {refusal.template!r}" if refusal.template else f"workflow {name!r}"
        raise BadInput(
            f"{where} uses {refusal.construct}, which `lockstep run` does not interpret",
            hint="the rendered subset of Argo is listed in pipelines/_manifest/subset.py",
        )
    for problem in lint(manifest, library):
        raise BadInput(f"workflow {name!r}, {problem.where}: {problem.what}", hint=problem.hint)


__all__ = ["Node", "Question", "Run", "Terms", "Watch", "load_library", "load_template", "run_workflow"]

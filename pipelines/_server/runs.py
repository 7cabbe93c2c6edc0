"""`lockstep runs`: what this project's workflows in a cluster are doing, and did."""

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import click
from hera.workflows.models import Workflow

from lockstep.errors import BadInput, nearest
from lockstep.settings import Settings
from pipelines._commands.telling import node_line
from pipelines._manifest.committed import load_template, template_names
from pipelines._project import manifests_root
from pipelines._server.argo import SCHEDULED_ANNOTATION, TEMPLATE_LABEL, Argo, NotThere
from pipelines._server.follow import how_to_resume, one_line, phase_of, run_of, seen_of, watch
from pipelines._template import SCHEDULED_TIME

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_SHORT = 60


@dataclass(frozen=True)
class Summary:
    """One run in a list of them.

    Attributes:
        name: of the workflow.
        pipeline: which one it runs.
        phase: Pending, Running, Succeeded, Failed or Error.
        started: RFC 3339, UTC; "" for one that waits.
        seconds: how long it took, or takes so far.
        parameters: those that were given to it; of a scheduled run with the time it is of.
        message: why it is not Succeeded.
    """

    name: str
    pipeline: str
    phase: str
    started: str
    seconds: float
    parameters: dict[str, str]
    message: str


def list_runs(pipeline: str | None, phase: str | None, limit: int, *, as_json: bool) -> None:
    """Print the latest runs of the committed workflows, whoever started them.

    Args:
        pipeline: only of this one.
        phase: only in this one.
        limit: how many at most.
        as_json: print a JSON list.

    Raises:
        BadInput: there is no such pipeline.
        Terminal: the server was not reached, or did not allow it.
    """
    root = manifests_root()
    names = template_names(root)
    wanted = [load_template(root, pipeline)["metadata"]["name"]] if pipeline else sorted(names)
    argo = Argo(Settings.load())
    found = [_summary(workflow, names) for workflow in argo.workflows(wanted, phase, limit)]
    if as_json:
        click.echo(json.dumps([asdict(run) for run in found], indent=2))
        return
    rows = [("NAME", "PIPELINE", "PHASE", "STARTED", "TOOK", "PARAMETERS")]
    rows += [(r.name, r.pipeline, r.phase, r.started, _took(r.seconds), _shortened(r.parameters)) for r in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    messages = ["", *(run.message for run in found)]
    for row, message in zip(rows, messages, strict=True) if found else ():
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if message:
            click.echo(f"    {message}")
    if not found:
        click.echo(f"no run of {', '.join(wanted)} in the namespace {argo.namespace!r}")


def show_run(name: str, *, as_json: bool) -> int:
    """Print one run with its nodes, also those that go on; return 0.

    Raises:
        BadInput: there is no run of that name.
        Terminal: the server was not reached, or did not allow it.
    """
    argo = Argo(Settings.load())
    workflow = _find(argo, name)
    run, summary = run_of(workflow), _summary(workflow, template_names(manifests_root()))
    if as_json:
        nodes = [asdict(node) for node in run.nodes]
        document = {**asdict(summary), "outputs": run.outputs, "nodes": nodes, "page": argo.page_of(name)}
        click.echo(json.dumps(document, indent=2, default=str))
        return 0
    for parameter, value in summary.parameters.items():
        click.echo(f"{parameter} = {one_line(value)}")
    for node in run.nodes:
        click.echo(node_line(node) + (f"  exit code {node.exit_code}" if node.exit_code else ""))
    click.echo(
        f"{name} is {summary.phase}, {_took(summary.seconds)}{f': {summary.message}' if summary.message else ''}"
    )
    click.echo(f"look at it: {argo.page_of(name)}")
    for seen in seen_of(workflow):
        if seen.waits:
            click.echo(how_to_resume(argo, name, seen))
    return 0


def watch_run(name: str, *, as_json: bool) -> int:
    """Follow one run till it ends, and return its exit code.

    Raises:
        BadInput: there is no run of that name.
        Terminal: the server was not reached, or did not allow it.
        Transient: the server was away for too long.
    """
    argo = Argo(Settings.load())
    _find(argo, name)  # a server that cannot be reached to begin with is not waited for
    return watch(argo, name, as_json=as_json)


def _find(argo: Argo, name: str) -> Workflow:
    names = template_names(manifests_root())
    if _NAME.fullmatch(name):  # it becomes part of a URL
        try:
            return argo.workflow(name)
        except NotThere:
            pass
    if name in names or name in names.values():
        hint = f"that is a workflow; its runs: `lockstep runs --pipeline {name}`"
    else:
        latest = argo.workflows(list(names), None, 100)
        hint = nearest(name, [run.metadata.name or "" for run in latest])
    raise BadInput(f"there is no run {name!r} in the namespace {argo.namespace!r} of {argo.url}", hint=hint)


def _summary(workflow: Workflow, pipelines: dict[str, str]) -> Summary:
    status, labels = workflow.status, workflow.metadata.labels or {}
    template = labels.get(TEMPLATE_LABEL, "")
    started = status.started_at.root.astimezone(UTC) if status and status.started_at else None
    ended = status.finished_at.root if status and status.finished_at else datetime.now(UTC)
    scheduled = (workflow.metadata.annotations or {}).get(SCHEDULED_ANNOTATION, SCHEDULED_TIME)
    given = (workflow.spec.arguments.parameters if workflow.spec.arguments else None) or []
    return Summary(
        name=workflow.metadata.name or "",
        pipeline=pipelines.get(template, template),
        phase=phase_of(workflow),
        started=started.strftime("%Y-%m-%dT%H:%M:%SZ") if started else "",
        seconds=(ended - started).total_seconds() if started else 0.0,
        parameters={parameter.name: (parameter.value or "").replace(SCHEDULED_TIME, scheduled) for parameter in given},
        message=one_line((status.message if status else None) or ""),
    )


def _took(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _shortened(parameters: dict[str, str]) -> str:
    text = " ".join(f"{name}={one_line(value[:_SHORT])}" for name, value in parameters.items())
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"

"""Follow a workflow in a cluster until it ends, and read it as a run like one of this machine's.

It is asked for again and again: that needs no more than `get`, and no proxy or ingress cuts it off, as it does the server's
stream of events.
"""

import re
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC

import click
from hera.workflows.models import NodeStatus, Time, Workflow
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from lockstep.errors import LockstepError, Terminal, Transient
from pipelines._commands.telling import node_line, tell_end
from pipelines._run.results import ERROR, FAILED, OMITTED, SKIPPED, SUCCEEDED, Node, Run, worst
from pipelines._server.argo import PENDING, Argo, NoAnswer, NotReached, NotThere

POLL = 3.0
"""Seconds from one look to the next."""

PATIENCE = 300.0
"""Seconds for which the server may be away; a rollout of it takes less."""

ENDED = frozenset({SUCCEEDED, FAILED, ERROR})
_BAD = frozenset({FAILED, ERROR})
_OVER = ENDED | {SKIPPED, OMITTED}
_PLAIN = re.compile("[A-Za-z0-9_-]+")
_COMPOUND = frozenset({"DAG", "TaskGroup", "Steps", "StepGroup"})


@dataclass(frozen=True)
class Seen:
    """A node of a workflow in a cluster.

    Attributes:
        key: its id.
        attempt: whether it is one attempt at a node that is tried again.
        waits: whether it waits for a person to resume it.
        answers: what that person is asked for by a name, and the values it may have; none of them is any value.
        node: what it came to so far.
    """

    key: str
    attempt: bool
    waits: bool
    answers: dict[str, list[str]]
    node: Node


def watch(argo: Argo, name: str, *, as_json: bool) -> int:
    """Tell of each node of a workflow as it ends, and of its end; return the exit code that `lockstep run` would give.

    Raises:
        Transient: the server was away for too long.
        Terminal: it does not let us look any more, or the workflow was deleted.
    """
    try:
        ended = follow(argo, name, lambda seen: _tell(argo, name, seen, as_json=as_json))
    except KeyboardInterrupt:
        click.echo(f"stopped watching; {name} goes on: `lockstep runs {name} --watch`", err=True)
        return 130
    code = tell_end(ended, as_json=as_json)
    if not ended.succeeded:
        click.echo(f"look at it: {argo.page_of(name)}", err=True)
    return code


def _tell(argo: Argo, name: str, seen: Seen, *, as_json: bool) -> None:
    if not as_json:
        click.echo(node_line(seen.node))
    if seen.waits:
        click.echo(how_to_resume(argo, name, seen), err=True)


def how_to_resume(argo: Argo, name: str, seen: Seen) -> str:
    """Return how a person answers a node that waits, and has the run go on.

    The second command names no node: then Argo refuses while an answer is missing, and with one it does not
    (`ResumeWorkflow` in its workflow/util/util.go).
    """
    run = f"{shlex.quote(name)} -n {shlex.quote(argo.namespace)}"
    asked = "; ".join(
        f"{answer}: {' or '.join(values)}" if values else answer for answer, values in seen.answers.items()
    )
    who = "somebody who may `update` workflows" + (f" ({asked})" if asked else "")
    lines = [f"Hint: {seen.node.name} waits for {who}: at {argo.page_of(name)}, or"]
    if seen.answers:
        node = f"displayName={seen.node.name}" if _PLAIN.fullmatch(seen.node.name) else f"id={seen.key}"
        given = " ".join(f"--output-parameter {shlex.quote(answer)}=VALUE" for answer in seen.answers)
        lines.append(f"  argo node set {run} {given} --node-field-selector {shlex.quote(one_line(node))}")
    return "\n".join([*lines, f"  argo resume {run}"])


def follow(argo: Argo, name: str, on_node: Callable[[Seen], None]) -> Run:
    """Return a workflow's run once it has ended; `on_node` is told of each node that does, or that waits for a person.

    Raises:
        Transient: the server was away for too long.
        Terminal: it does not let us look any more, or the workflow was deleted.
    """
    told: set[tuple[str, str]] = set()
    while True:
        workflow = _look(argo, name)
        for seen in seen_of(workflow):
            if (seen.node.phase in _OVER or seen.waits) and (seen.key, seen.node.phase) not in told:
                told.add((seen.key, seen.node.phase))
                on_node(seen)
        if phase_of(workflow) in ENDED:
            return run_of(workflow)
        time.sleep(POLL)


def _look(argo: Argo, name: str) -> Workflow:
    def say(state: RetryCallState) -> None:
        if state.attempt_number == 1:
            click.echo(f"{argo.url} does not answer; {name} goes on, and is looked for again", err=True)

    patiently = Retrying(
        retry=retry_if_exception_type((NotReached, NoAnswer)),
        stop=stop_after_delay(PATIENCE),
        wait=wait_exponential(multiplier=POLL / 4, max=15),
        before_sleep=say,
        reraise=True,
    )
    again = f"it goes on: `lockstep runs {name} --watch`"
    try:
        return patiently(argo.workflow, name)
    except (NotReached, NoAnswer) as away:
        raise Transient(f"lost sight of {name}: {_said(away)}", hint=again) from None
    except NotThere:
        raise Terminal(f"{name} was deleted while it was watched: how it ended is not known") from None
    except Terminal as refused:
        raise Terminal(
            f"lost sight of {name}: {_said(refused)}", hint="; ".join(filter(None, (again, refused.hint)))
        ) from None


def run_of(workflow: Workflow) -> Run:
    """Return a workflow as a run; one that has not ended has not succeeded."""
    name, phase = workflow.metadata.name or "", phase_of(workflow)
    seen = seen_of(workflow)
    broken = [one.node for one in seen if one.node.phase in _BAD and not one.attempt]
    message = one_line((workflow.status.message if workflow.status else None) or "")
    whole = Node(name=name, template="", phase=phase, exit_code=1, message=message)
    succeeded = phase == SUCCEEDED
    return Run(
        name=name,
        succeeded=succeeded,
        exit_code=0 if succeeded else worst(node.exit_code for node in broken) or 1,
        nodes=[one.node for one in seen],
        outputs=next((_outputs(status) for status in _statuses(workflow).values() if status.name == name), {}),
        failed=None if succeeded else next(iter(broken), whole),
    )


def seen_of(workflow: Workflow) -> list[Seen]:
    """Return what a person wants to see of a workflow's nodes, in the order they ended; those that go on come last.

    That are its pods: of one that is tried again the whole, and each attempt that failed. DAGs and fan-outs are left out,
    unless they are in error themselves.
    """
    statuses = _statuses(workflow)
    attempts = {key: _attempts(status, statuses) for key, status in statuses.items()}
    tried = {attempt for several in attempts.values() for attempt in several}
    found: list[tuple[tuple[str, bool, str], Seen]] = []
    for key, status in statuses.items():
        own_error = status.phase == ERROR and status.message and not status.message.startswith("child '")
        if (key in tried and status.phase not in _BAD) or (status.type in _COMPOUND and not own_error):
            continue
        last = statuses[attempts[key][-1]] if attempts[key] else None
        finished, started = _iso(status.finished_at), _iso(status.started_at)
        order = (finished or "~", key not in tried, started)
        node = _node(workflow.metadata.name or "", status, last)
        found.append((order, Seen(key, key in tried, _waits(status), _answers(status), node)))
    return [seen for _, seen in sorted(found, key=lambda pair: pair[0])]


def phase_of(workflow: Workflow) -> str:
    """Return a workflow's phase; one that has none was not seen by the controller yet."""
    return (workflow.status.phase if workflow.status else None) or PENDING


def one_line(text: str) -> str:
    """Return a text of the server's so that it does nothing to a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _statuses(workflow: Workflow) -> Mapping[str, NodeStatus]:
    return (workflow.status.nodes if workflow.status else None) or {}


def _attempts(status: NodeStatus, statuses: Mapping[str, NodeStatus]) -> list[str]:
    """Return the attempts of a node that is tried again, in their order: its children but for hooks."""
    if status.type != "Retry":
        return []
    attempt = re.compile(re.escape(status.name) + r"\((\d+)\)")
    numbered = [
        (int(match[1]), child)
        for child in status.children or []
        if child in statuses and (match := attempt.fullmatch(statuses[child].name))
    ]
    return [child for _, child in sorted(numbered)]


def _node(workflow: str, status: NodeStatus, last: NodeStatus | None) -> Node:
    """Return a node; `last` is the last attempt at it, which its exit code is taken from if it has none itself."""
    ended = [one.outputs.exit_code for one in (status, last) if one and one.outputs and one.outputs.exit_code]
    seconds = 0.0
    if status.started_at and status.finished_at:
        seconds = (status.finished_at.root - status.started_at.root).total_seconds()
    return Node(
        name=one_line(status.name.removeprefix(f"{workflow}.")),
        template=status.template_name or "",
        phase=status.phase or PENDING,
        exit_code=int(ended[0]) if ended and ended[0].lstrip("-").isdigit() else None,
        outputs=_outputs(status),
        message=one_line(status.message or ("waits to be resumed" if _waits(status) else "")),
        seconds=seconds,
    )


def _waits(status: NodeStatus) -> bool:
    return status.type == "Suspend" and status.phase == "Running"


def _answers(status: NodeStatus) -> dict[str, list[str]]:
    """Return what a node that waits asks for, by Argo's rule: outputs that are to be supplied, of inputs of the same name."""
    inputs = (status.inputs.parameters if status.inputs else None) or []
    values = {parameter.name: parameter.enum or [] for parameter in inputs}
    outputs = (status.outputs.parameters if status.outputs else None) or []
    asked = [p.name for p in outputs if p.value_from and p.value_from.supplied is not None]
    return {one_line(name): [one_line(value) for value in values.get(name, [])] for name in asked}


def _outputs(status: NodeStatus) -> dict[str, str]:
    parameters = (status.outputs.parameters if status.outputs else None) or []
    return {parameter.name: str(parameter.value) for parameter in parameters if parameter.value is not None}


def _iso(time: Time | None) -> str:
    return time.root.astimezone(UTC).isoformat() if time else ""


def _said(error: LockstepError) -> str:
    """Return an error's sentence without its hint."""
    return str(error.args[0])

"""Interpret one WorkflowTemplate whose constructs and references have been checked: what runs when, and what it is given.

Phases follow https://argo-workflows.readthedocs.io/en/latest/walk-through/dag/ and /walk-through/steps/. With one job tasks
run one after the other, in the order they are written in; with more, each in a thread that waits for its pod.
"""

import json
import re
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from pipelines._approvals import NOBODY, Ask, answer, questions
from pipelines._crew import Crew
from pipelines._expressions import (
    AbsentError,
    ExpressionError,
    Scope,
    depends_on,
    evaluate_depends,
    evaluate_when,
    item_scope,
    items_of,
    substitute,
    tags,
)
from pipelines._library import Called, Templates, call_name
from pipelines._lint import inputs_of
from pipelines._outcomes import (
    ATTEMPT,
    BAD,
    ERROR,
    FAILED,
    NOT_RUN,
    OMITTED,
    POD,
    SKIPPED,
    SUCCEEDED,
    SUSPENSION,
    Node,
    Outcome,
    Run,
    broken,
    dag_phase,
    fan_out,
    holds,
    worst,
)
from pipelines._pod import make_pod
from pipelines._pods import Pods
from pipelines._retries import Attempt, read_retries
from pipelines._turns import Turns


class Watch(Protocol):
    """Who is told what becomes of a run, from one thread at a time."""

    def started(self, name: str) -> None:
        """A script was begun, or a person is asked for an approval."""

    def ended(self, node: Node) -> None:
        """A node has ended."""


@dataclass(frozen=True)
class Terms:
    """How a run is run, which its manifest does not say.

    Attributes:
        retry_wait: seconds that a retry waits at most, whatever its back-off is.
        approvals: values that suspended nodes wait for, by node or `node.parameter`.
        ask: asks a person for such a value; None where nobody is there.
    """

    retry_wait: float = 1.0
    approvals: Mapping[str, str] = field(default_factory=dict)
    ask: Ask | None = None


@dataclass(frozen=True)
class _Frame:
    """A DAG or a list of steps that is running: what its tasks run in."""

    path: str
    document: str
    scope: Scope
    places: int | None = None

    def child(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def knowing(self, kind: str, name: str, ended: Outcome, called: Called) -> "_Frame":
        """Return the frame in which tags about an ended task stand for something."""
        outputs: dict[str, str | None] = {}
        for output in called.template.get("outputs", {}).get("parameters", []):
            default = output["valueFrom"].get("default") if ended.phase in NOT_RUN else None
            outputs[output["name"]] = ended.outputs.get(output["name"], None if default is None else _text(default))
        told: Scope = {
            f"{kind}.{name}.status": ended.phase,
            f"{kind}.{name}.exitCode": None if ended.exit_code is None else str(ended.exit_code),
            **{f"{kind}.{name}.outputs.parameters.{output}": value for output, value in outputs.items()},
        }
        return replace(self, scope={**self.scope, **told})


class Interpreter:
    """One run of one manifest."""

    def __init__(
        self,
        manifest: Mapping[str, Any],
        templates: Templates,
        arguments: dict[str, str],
        scratch: Path,
        logs_dir: Path,
        *,
        crew: Crew,
        pods: Pods,
        watch: Watch,
        terms: Terms,
    ) -> None:
        self.spec, self.templates, self.arguments = manifest["spec"], templates, arguments
        self.scratch, self.logs_dir = scratch, logs_dir
        self.crew, self.pods, self.watch, self.terms = crew, pods, watch, terms
        self.turns = Turns()
        self.nodes: list[Node] = []
        self.scripts = 0
        self._lock = Lock()
        self.globals: dict[str, str] = {
            "workflow.name": logs_dir.name,
            "workflow.namespace": manifest["metadata"].get("namespace", "local"),
            "workflow.uid": logs_dir.name,
            "workflow.parameters": json.dumps([{"name": k, "value": v} for k, v in arguments.items()]),
            **{f"workflow.parameters.{name}": value for name, value in arguments.items()},
        }

    def run(self) -> Run:
        """Run the entrypoint, and the exit handler after it."""
        ended = self._root(self.spec["entrypoint"], "")
        succeeded = ended.phase == SUCCEEDED
        if "onExit" in self.spec:
            self.globals["workflow.status"] = ended.phase
            self.globals["workflow.failures"] = self._failures()
            last = self._root(self.spec["onExit"], "onExit")
            succeeded = succeeded and last.phase == SUCCEEDED
        bad = broken(self.nodes)
        return Run(
            name=self.logs_dir.name,
            succeeded=succeeded,
            exit_code=0 if succeeded else worst(node.exit_code for node in bad) or 1,
            nodes=self.nodes,
            outputs=ended.outputs,
            failed=None if succeeded else next(iter(bad), None),
        )

    def _root(self, template: str, path: str) -> Outcome:
        since = time.perf_counter()
        try:
            return self._template(self.templates.own(template), template, path, self.arguments)
        except ExpressionError as impossible:
            return self._end(path or template, template, Outcome(ERROR, 2), since=since, message=str(impossible))

    def _failures(self) -> str:
        failures = [
            {"displayName": n.name, "templateName": n.template, "phase": n.phase, "message": n.message}
            for n in broken(self.nodes)
        ]
        # Argo quotes the JSON text once more (operator.go, "escaped quotes are not removed"): a step reads JSON in JSON.
        return json.dumps(json.dumps(failures))

    def _start(self, name: str) -> None:
        with self._lock:
            self.watch.started(name)

    def _end(self, name: str, template: str, ended: Outcome, *, since: float, **more: Any) -> Outcome:
        node = Node(name, template, ended.phase, ended.exit_code, ended.outputs, seconds=_seconds(since), **more)
        with self._lock:
            self.nodes.append(node)
            self.watch.ended(node)
        return ended

    # -- templates -----------------------------------------------------------------------------------------------------

    def _template(
        self, called: Called, label: str, path: str, given: Mapping[str, str], around: _Frame | None = None
    ) -> Outcome:
        template, since = called.template, time.perf_counter()
        inputs = {name: _text(given.get(name, _default(p))) for name, p in inputs_of(template).items()}
        scope: Scope = {**self.globals, **{f"inputs.parameters.{name}": value for name, value in inputs.items()}}
        if "suspend" in template:
            return self._suspend(template, label, path or label, inputs)
        mutexes = template.get("synchronization", {}).get("mutexes", [])
        names = dict.fromkeys(substitute(mutex["name"], scope) for mutex in mutexes)
        # as Argo does: a place first, then the locks
        place = self.turns.place(around.path, around.places) if around else nullcontext()
        with place, self.turns.holding(names, path):
            if "script" in template:
                return self._script(template, label, path or label, inputs, scope)
            frame = _Frame(path, called.document, scope, template.get("parallelism"))
            ended, message = self._dag(template, frame) if "dag" in template else self._steps(template, frame)
        if path or ended.phase == ERROR:
            return self._end(path or label, label, ended, since=since, message=message)
        return ended

    def _script(
        self, template: Mapping[str, Any], label: str, name: str, inputs: Mapping[str, str], scope: Scope
    ) -> Outcome:
        retries, first = read_retries(template.get("retryStrategy", {})), time.perf_counter()
        attempts = 0
        while True:
            since, attempts = time.perf_counter(), attempts + 1
            attempt = f"{name}({attempts - 1})"
            ended, ended_as, more = self._attempt(template, name if attempts == 1 else attempt, inputs, scope)
            again = ended.phase in BAD and retries.again(ended_as, attempts)
            if again or attempts > 1:
                self._end(attempt, label, ended, since=since, kind=ATTEMPT, **more)
            if not again:
                return self._end(name, label, ended, since=first, kind=POD, **more)
            self.turns.pause(min(retries.wait(attempts), self.terms.retry_wait))

    def _attempt(
        self, template: Mapping[str, Any], name: str, inputs: Mapping[str, str], scope: Scope
    ) -> tuple[Outcome, Attempt, dict[str, Any]]:
        with self._lock:
            self.scripts += 1
            unit = f"{self.scripts:03d}-{re.sub('[^A-Za-z0-9.-]+', '_', name)[:100]}"
        log = self.logs_dir / f"{unit}.log"
        pod = make_pod(template, inputs, scope, folder=self.scratch / unit, log=log)
        self._start(name)
        ended = self.pods.run(pod)
        missing = {o["name"] for o in pod.outputs} - set(ended.outputs)
        more = {"message": ended.message, "log": log}
        if ended.exit_code is None:
            return Outcome(ERROR, None), Attempt(ERROR, None), more
        if ended.exit_code:
            return Outcome(FAILED, ended.exit_code, ended.outputs), Attempt(FAILED, ended.exit_code), more
        if missing:
            more["message"] = f"did not write its output {', '.join(sorted(missing))}"
            return Outcome(ERROR, 2, ended.outputs), Attempt(ERROR, 0), more
        return Outcome(SUCCEEDED, 0, ended.outputs), Attempt(SUCCEEDED, 0), more

    def _suspend(self, template: Mapping[str, Any], label: str, name: str, inputs: Mapping[str, str]) -> Outcome:
        since, outputs = time.perf_counter(), dict[str, str]()
        asked, ask = list(questions(template, name, inputs)), self.terms.ask
        for question in asked:
            value = answer(question, self.terms.approvals, alone=len(asked) == 1)
            if value is None and ask is not None:
                self._start(name)
                value = self.crew.in_main(lambda: ask(question))  # noqa: B023 - it is answered within the loop
            if value is None:
                message = f"nobody is here to decide: run it at a terminal, or give {question.option}"
                refused = Outcome(FAILED, NOBODY)
                return self._end(name, label, refused, since=since, message=message, kind=SUSPENSION)
            outputs[question.parameter] = value
        return self._end(name, label, Outcome(SUCCEEDED, 0, outputs), since=since, kind=SUSPENSION)

    def _dag(self, template: Mapping[str, Any], frame: _Frame) -> tuple[Outcome, str]:
        """Return how a DAG ended, and why if not well."""
        tasks = {task["name"]: task for task in template["dag"]["tasks"]}
        parents = {name: [o.task for o in depends_on(task.get("depends", ""))] for name, task in tasks.items()}
        running: dict[Future[Outcome], str] = {}
        done: dict[str, Outcome] = {}
        while len(done) < len(tasks):
            begun = {*done, *running.values()}
            ready = next((n for n in tasks if n not in begun and all(parent in done for parent in parents[n])), None)
            if ready is None:
                self.crew.wait(running)
            else:
                work = partial(self._task, tasks[ready], frame.child(ready), frame, dict(done))
                running[self.crew.start(work)] = ready
            for ended in [part for part in running if part.done()]:
                name = running.pop(ended)
                done[name] = ended.result()
                frame = frame.knowing("tasks", name, done[name], self.templates.called(tasks[name], frame.document))
        return self._made(template, frame, done, dag_phase(parents, done))

    def _steps(self, template: Mapping[str, Any], frame: _Frame) -> tuple[Outcome, str]:
        """Return how the steps of a template ended, one group after the other, and why if not well."""
        done: dict[str, Outcome] = {}
        for number, group in enumerate(template["steps"]):
            inside = f"{frame.path}[{number}]"
            parts = [
                self.crew.start(partial(self._task, step, f"{inside}.{step['name']}", frame, {})) for step in group
            ]
            done |= {step["name"]: part.result() for step, part in zip(group, parts, strict=True)}
            for step in group:
                called = self.templates.called(step, frame.document)
                frame = frame.knowing("steps", step["name"], done[step["name"]], called)
            if any(ended.phase in BAD for ended in done.values()):
                return self._made(template, frame, done, FAILED)
        return self._made(template, frame, done, SUCCEEDED)

    def _made(
        self, template: Mapping[str, Any], frame: _Frame, done: Mapping[str, Outcome], phase: str
    ) -> tuple[Outcome, str]:
        """Return the outcome of a DAG or steps with the outputs it takes from its tasks; one without a value is an error."""
        exit_code = worst(ended.exit_code for ended in done.values())
        if phase != SUCCEEDED:
            failed = ", ".join(n for n, ended in done.items() if ended.phase in BAD)
            return Outcome(phase, exit_code or 1), f"failed: {failed}"
        outputs: dict[str, str] = {}
        for output in template.get("outputs", {}).get("parameters", []):
            source = output["valueFrom"]
            try:
                outputs[output["name"]] = substitute(source["parameter"], frame.scope)
            except ExpressionError as absent:
                if "default" not in source:
                    # Argo >= 4.0.7 (operator.go, getTemplateOutputsFromScope)
                    return Outcome(ERROR, 2), f"its output {output['name']!r}: {absent}, and it has no default"
                outputs[output["name"]] = _text(source["default"])
        return Outcome(SUCCEEDED, 0, outputs), ""

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _task(self, call: Mapping[str, Any], path: str, frame: _Frame, done: Mapping[str, Outcome]) -> Outcome:
        since = time.perf_counter()
        try:
            if not evaluate_depends(call.get("depends", ""), lambda operand: holds(operand, done[operand.task])):
                return self._not_run(call, path, OMITTED, f"depends: {call['depends']}")
            if "withParam" in call:
                return self._fan_out(call, path, frame, since)
            return self._call(call, path, frame)
        except ExpressionError as impossible:
            return self._end(path, call_name(call), Outcome(ERROR, 2), since=since, message=str(impossible))

    def _not_run(self, call: Mapping[str, Any], path: str, phase: str, why: str) -> Outcome:
        return self._end(path, call_name(call), Outcome(phase), since=time.perf_counter(), message=why)

    def _fan_out(self, call: Mapping[str, Any], path: str, frame: _Frame, since: float) -> Outcome:
        when = call.get("when", "")
        if (
            when
            and not any(tag.split(".")[0] == "item" for tag in tags(when))
            and not evaluate_when(when, frame.scope)
        ):
            return self._not_run(call, path, SKIPPED, f"when: {when}")
        items = items_of(substitute(call["withParam"], frame.scope))
        if not items:
            return self._not_run(call, path, SKIPPED, "nothing to fan out over")
        frames = [replace(frame, scope={**frame.scope, **item_scope(item)}) for item in items]
        each = {name: value for name, value in call.items() if name not in ("depends", "withParam")}
        parts = [self.crew.start(partial(self._task, each, f"{path}({n})", of, {})) for n, of in enumerate(frames)]
        ended = fan_out(tuple(part.result() for part in parts))
        bad = sum(item.phase in BAD for item in ended.items or ())
        message = f"{bad} of {len(items)} items failed" if bad else ""
        return self._end(path, call_name(call), ended, since=since, message=message)

    def _call(self, call: Mapping[str, Any], path: str, frame: _Frame) -> Outcome:
        if call.get("when") and not evaluate_when(call["when"], frame.scope):
            return self._not_run(call, path, SKIPPED, f"when: {call['when']}")
        called = self.templates.called(call, frame.document)
        wanted = inputs_of(called.template)
        given: dict[str, str] = {}
        for argument in call.get("arguments", {}).get("parameters", []):
            value = _text(argument["value"])
            try:
                given[argument["name"]] = substitute(value, frame.scope)
            except AbsentError as absent:
                # Argo >= 4.0.7: an argument that is nothing but an absent output is left out, and the default applies
                if _default(wanted[argument["name"]]) is None or value.strip() != f"{{{{{tags(value)[0]}}}}}":
                    raise ExpressionError(f"{absent}, and input {argument['name']!r} has no default") from None
        return self._template(called, call_name(call), path, given, frame)


def _default(parameter: Mapping[str, Any]) -> Any:
    return parameter.get("value", parameter.get("default"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _seconds(since: float) -> float:
    return round(time.perf_counter() - since, 3)

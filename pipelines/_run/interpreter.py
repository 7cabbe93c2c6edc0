"""Interpret one WorkflowTemplate whose constructs and references have been checked: what runs when, and what it is given.

Phases follow https://argo-workflows.readthedocs.io/en/latest/walk-through/dag/ and /walk-through/steps/. With one job tasks
run one after the other, in the order they are written in; with more, each in a thread that waits for its pod.
"""

import json
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pipelines._manifest.calls import Name, Template, Templates, inputs_of
from pipelines._manifest.expressions import (
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
from pipelines._run.crew import Crew
from pipelines._run.leaves import Leaves
from pipelines._run.record import Record
from pipelines._run.results import (
    BAD,
    ERROR,
    FAILED,
    NOT_RUN,
    OMITTED,
    SKIPPED,
    SUCCEEDED,
    Outcome,
    Run,
    broken,
    dag_phase,
    fan_out,
    holds,
    worst,
)
from pipelines._run.turns import Turns


@dataclass(frozen=True)
class _Frame:
    """A DAG or a list of steps that is running: what its tasks run in."""

    path: str
    document: str
    scope: Scope
    places: int | None = None

    def child(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def knowing(self, kind: str, name: str, ended: Outcome, template: Template) -> "_Frame":
        """Return the frame in which tags about an ended task stand for something."""
        outputs: dict[str, str | None] = {}
        for output in template.get("outputs", {}).get("parameters", []):
            default = output["valueFrom"].get("default") if ended.phase in NOT_RUN else None
            outputs[output["name"]] = ended.outputs.get(output["name"], None if default is None else _text(default))
        told: Scope = {
            f"{kind}.{name}.status": ended.phase,
            f"{kind}.{name}.exitCode": None if ended.exit_code is None else str(ended.exit_code),
            **{f"{kind}.{name}.outputs.parameters.{output}": value for output, value in outputs.items()},
        }
        return replace(self, scope={**self.scope, **told})


class Interpreter:
    """One run of one manifest.

    Args:
        manifest: the document.
        templates: its templates, and those it refers to.
        arguments: the value of every workflow parameter.
        name: the run's.
        leaves: runs templates without tasks.
        record: told of each node.
        crew: does at the same time what may be done so.
        turns: keep to mutexes and `parallelism`.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        templates: Templates,
        arguments: Mapping[str, str],
        name: str,
        *,
        leaves: Leaves,
        record: Record,
        crew: Crew,
        turns: Turns,
    ) -> None:
        self.spec, self.templates, self.arguments, self.name = manifest["spec"], templates, arguments, name
        self.leaves, self.record, self.crew, self.turns = leaves, record, crew, turns
        self.globals: dict[str, str] = {
            "workflow.name": name,
            "workflow.namespace": manifest["metadata"].get("namespace", "local"),
            "workflow.uid": name,
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
        bad = broken(self.record.nodes)
        return Run(
            name=self.name,
            succeeded=succeeded,
            exit_code=0 if succeeded else worst(node.exit_code for node in bad) or 1,
            nodes=self.record.nodes,
            outputs=ended.outputs,
            failed=None if succeeded else next(iter(bad), None),
        )

    def _root(self, template: str, path: str) -> Outcome:
        since = time.perf_counter()
        try:
            return self._template((self.templates.own, template), template, path, self.arguments)
        except ExpressionError as impossible:
            return self.record.end(path or template, template, Outcome(ERROR, 2), since=since, message=str(impossible))

    def _failures(self) -> str:
        failures = [
            {"displayName": n.name, "templateName": n.template, "phase": n.phase, "message": n.message}
            for n in broken(self.record.nodes)
        ]
        # Argo quotes the JSON text once more (operator.go, "escaped quotes are not removed"): a step reads JSON in JSON.
        return json.dumps(json.dumps(failures))

    # -- templates -----------------------------------------------------------------------------------------------------

    def _template(
        self, called: Name, label: str, path: str, given: Mapping[str, str], around: _Frame | None = None
    ) -> Outcome:
        template, since = self.templates[called], time.perf_counter()
        inputs = {name: _text(given.get(name, _default(p))) for name, p in inputs_of(template).items()}
        scope: Scope = {**self.globals, **{f"inputs.parameters.{name}": value for name, value in inputs.items()}}
        if "suspend" in template:
            return self.leaves.suspend(template, label, path or label, inputs)
        mutexes = template.get("synchronization", {}).get("mutexes", [])
        names = dict.fromkeys(substitute(mutex["name"], scope) for mutex in mutexes)
        # as Argo does: a place first, then the locks
        place = self.turns.place(around.path, around.places) if around else nullcontext()
        with place, self.turns.holding(names, path):
            if "script" in template:
                return self.leaves.script(template, label, path or label, inputs, scope)
            frame = _Frame(path, called[0], scope, template.get("parallelism"))
            ended, message = self._dag(template, frame) if "dag" in template else self._steps(template, frame)
        return self.record.end(path, label, ended, since=since, message=message) if path else ended

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
                callee = self.templates[self._callee(tasks[name], frame)]
                frame = frame.knowing("tasks", name, done[name], callee)
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
                callee = self.templates[self._callee(step, frame)]
                frame = frame.knowing("steps", step["name"], done[step["name"]], callee)
            if any(ended.phase in BAD for ended in done.values()):
                return self._made(template, frame, done, FAILED)
        return self._made(template, frame, done, SUCCEEDED)

    def _made(
        self, template: Mapping[str, Any], frame: _Frame, done: Mapping[str, Outcome], phase: str
    ) -> tuple[Outcome, str]:
        """Return the outcome of a DAG or steps, with the outputs it takes from its tasks, and why it is not well.

        Raises:
            ExpressionError: an output has no value.
        """
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
                    what = f"its output {output['name']!r}: {absent}, and it has no default"
                    raise ExpressionError(what) from absent
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
            return self.record.end(path, _label(call), Outcome(ERROR, 2), since=since, message=str(impossible))

    def _not_run(self, call: Mapping[str, Any], path: str, phase: str, why: str) -> Outcome:
        return self.record.end(path, _label(call), Outcome(phase), since=time.perf_counter(), message=why)

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
        return self.record.end(path, _label(call), ended, since=since, message=message)

    def _call(self, call: Mapping[str, Any], path: str, frame: _Frame) -> Outcome:
        if call.get("when") and not evaluate_when(call["when"], frame.scope):
            return self._not_run(call, path, SKIPPED, f"when: {call['when']}")
        called = self._callee(call, frame)
        wanted = inputs_of(self.templates[called])
        given: dict[str, str] = {}
        for argument in call.get("arguments", {}).get("parameters", []):
            value = _text(argument["value"])
            try:
                given[argument["name"]] = substitute(value, frame.scope)
            except AbsentError as absent:
                # Argo >= 4.0.7: an argument that is nothing but an absent output is left out, and the default applies
                if _default(wanted[argument["name"]]) is None or value.strip() != f"{{{{{tags(value)[0]}}}}}":
                    raise ExpressionError(f"{absent}, and input {argument['name']!r} has no default") from None
        return self._template(called, _label(call), path, given, frame)

    def _callee(self, call: Mapping[str, Any], frame: _Frame) -> Name:
        found = self.templates.callee(frame.document, call)
        if found is None:  # pragma: no cover - every reference was followed before anything ran
            raise ExpressionError(f"{call['name']!r} calls nothing")
        return found


def _label(call: Mapping[str, Any]) -> str:
    """Return how a node calls the template of a task: `name`, or `document/name` for a reference."""
    reference = call.get("templateRef")
    return f"{reference['name']}/{reference['template']}" if reference else str(call.get("template"))


def _default(parameter: Mapping[str, Any]) -> Any:
    return parameter.get("value", parameter.get("default"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

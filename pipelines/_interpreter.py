"""Interpret one WorkflowTemplate whose constructs and references have been checked: phases, outputs, exit codes.

Phases follow https://argo-workflows.readthedocs.io/en/latest/walk-through/dag/ ; tasks run one after the other, in the order
they are written in.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines._expressions import (
    AbsentError,
    ExpressionError,
    Operand,
    Scope,
    aggregate,
    depends_on,
    evaluate_depends,
    evaluate_when,
    item_scope,
    items_of,
    substitute,
    tags,
)
from pipelines._lint import inputs_of
from pipelines._pod import run_script

SUCCEEDED, FAILED, ERROR, SKIPPED, OMITTED = "Succeeded", "Failed", "Error", "Skipped", "Omitted"
_BAD = (FAILED, ERROR)
_NOT_RUN = (SKIPPED, OMITTED)


@dataclass(frozen=True)
class Node:
    """One node of a run, as it ended.

    Attributes:
        name: the path of tasks to it, items of a fan-out numbered: `view(0).plan`.
        template: what it ran.
        phase: Succeeded, Failed (its exit code was not 0), Error (it could not be run), Skipped (`when`, or nothing to
            fan out over) or Omitted (`depends`).
        exit_code: of a script; of a DAG or a fan-out the worst of its parts; None where nothing ran.
        outputs: output parameters by name.
        message: why it is not Succeeded.
        log: stdout and stderr of a script.
        seconds: how long it took.
    """

    name: str
    template: str
    phase: str
    exit_code: int | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    message: str = ""
    log: Path | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Run:
    """A whole run.

    Attributes:
        name: the name of its folder of logs.
        succeeded: whether Argo would call the workflow Succeeded.
        exit_code: 0 if so; else 3 if a gate refused, else 2 if a failure is terminal, else 1.
        nodes: all nodes in the order they ended; a DAG and a fan-out come after their parts.
        outputs: the entrypoint's output parameters.
        failed: the first script that failed, or the first node that could not be run.
    """

    name: str
    succeeded: bool
    exit_code: int
    nodes: list[Node]
    outputs: dict[str, str]
    failed: Node | None


@dataclass(frozen=True)
class _Outcome:
    """What the rest of a DAG sees of one of its tasks."""

    phase: str
    exit_code: int | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    items: "tuple[_Outcome, ...] | None" = None


class Interpreter:
    """One run of one manifest."""

    def __init__(
        self,
        manifest: Mapping[str, Any],
        arguments: dict[str, str],
        scratch: Path,
        logs_dir: Path,
        on_node: Callable[[Node], None] | None,
    ) -> None:
        self.spec = manifest["spec"]
        self.templates: dict[str, dict[str, Any]] = {t["name"]: t for t in self.spec["templates"]}
        self.arguments, self.scratch, self.logs_dir, self.on_node = arguments, scratch, logs_dir, on_node
        self.nodes: list[Node] = []
        self.scripts = 0
        self.globals: dict[str, str] = {
            "workflow.name": logs_dir.name,
            "workflow.namespace": manifest["metadata"].get("namespace", "local"),
            "workflow.uid": logs_dir.name,
            "workflow.parameters": json.dumps([{"name": k, "value": v} for k, v in arguments.items()]),
            **{f"workflow.parameters.{name}": value for name, value in arguments.items()},
        }

    def run(self) -> Run:
        ended = self._template(self.spec["entrypoint"], "", self.arguments)
        succeeded = ended.phase == SUCCEEDED
        if "onExit" in self.spec:
            self.globals["workflow.status"] = ended.phase
            self.globals["workflow.failures"] = self._failures()
            last = self._template(self.spec["onExit"], "onExit", self.arguments)
            succeeded = succeeded and last.phase == SUCCEEDED
        return Run(
            name=self.logs_dir.name,
            succeeded=succeeded,
            exit_code=0 if succeeded else worst(node.exit_code for node in self._broken()) or 1,
            nodes=self.nodes,
            outputs=ended.outputs,
            failed=None if succeeded else next(iter(self._broken()), None),
        )

    def _broken(self) -> list[Node]:
        """Return the nodes that failed themselves: scripts, and what could not be run."""
        return [n for n in self.nodes if n.phase in _BAD and (n.log is not None or n.phase == ERROR)]

    def _failures(self) -> str:
        failures = [
            {"displayName": n.name, "templateName": n.template, "phase": n.phase, "message": n.message}
            for n in self._broken()
        ]
        # Argo quotes the JSON text once more (operator.go, "escaped quotes are not removed"): a step reads JSON in JSON.
        return json.dumps(json.dumps(failures))

    def _end(self, name: str, template: str, ended: _Outcome, *, since: float, **more: Any) -> _Outcome:
        node = Node(name, template, ended.phase, ended.exit_code, ended.outputs, seconds=_seconds(since), **more)
        self.nodes.append(node)
        if self.on_node is not None:
            self.on_node(node)
        return ended

    # -- templates -----------------------------------------------------------------------------------------------------

    def _template(self, template_name: str, path: str, given: Mapping[str, str]) -> _Outcome:
        template, since = self.templates[template_name], time.perf_counter()
        inputs = {name: _text(given.get(name, _default(p))) for name, p in inputs_of(template).items()}
        scope = {**self.globals, **{f"inputs.parameters.{name}": value for name, value in inputs.items()}}
        name = path or template_name
        if "script" in template:
            return self._script(template, name, inputs, scope)
        ended, message = self._dag(template, path, scope)
        return self._end(name, template_name, ended, since=since, message=message) if path else ended

    def _script(self, template: dict[str, Any], name: str, inputs: Mapping[str, str], scope: Scope) -> _Outcome:
        since = time.perf_counter()
        self.scripts += 1
        unit = f"{self.scripts:03d}-{re.sub('[^A-Za-z0-9.-]+', '_', name)[:100]}"
        log = self.logs_dir / f"{unit}.log"
        folder = self.scratch / unit
        folder.mkdir()
        pod = run_script(template, inputs, scope, folder=folder, log=log)
        missing = {o["name"] for o in template.get("outputs", {}).get("parameters", [])} - set(pod.outputs)
        phase, message = (FAILED if pod.exit_code else SUCCEEDED), pod.message
        if missing and not pod.exit_code:
            phase, message = ERROR, f"did not write its output {', '.join(sorted(missing))}"
        ended = _Outcome(phase, pod.exit_code or (2 if phase == ERROR else 0), pod.outputs)
        return self._end(name, template["name"], ended, since=since, message=message, log=log)

    def _dag(self, template: dict[str, Any], path: str, scope: dict[str, str]) -> tuple[_Outcome, str]:
        """Return how a DAG ended, and why if not well."""
        tasks = {task["name"]: task for task in template["dag"]["tasks"]}
        parents = {name: [o.task for o in depends_on(task.get("depends", ""))] for name, task in tasks.items()}
        done: dict[str, _Outcome] = {}
        inner: dict[str, str | None] = dict(scope)
        while len(done) < len(tasks):
            name = next(n for n in tasks if n not in done and all(parent in done for parent in parents[n]))
            done[name] = self._task(tasks[name], f"{path}.{name}" if path else name, inner, done)
            inner |= self._scope_of(tasks[name], done[name])
        phase = _dag_phase(parents, done)
        exit_code = worst(ended.exit_code for ended in done.values())
        if phase != SUCCEEDED:
            failed = ", ".join(n for n, ended in done.items() if ended.phase in _BAD)
            return _Outcome(phase, exit_code or 1), f"failed: {failed}"
        outputs: dict[str, str] = {}
        for output in template.get("outputs", {}).get("parameters", []):
            source = output["valueFrom"]
            try:
                outputs[output["name"]] = substitute(source["parameter"], inner)
            except AbsentError:
                if "default" in source:
                    outputs[output["name"]] = _text(source["default"])
        return _Outcome(SUCCEEDED, 0, outputs), ""

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _task(self, task: dict[str, Any], path: str, scope: Scope, done: Mapping[str, _Outcome]) -> _Outcome:
        since = time.perf_counter()
        try:
            if not evaluate_depends(task.get("depends", ""), lambda operand: _holds(operand, done[operand.task])):
                message = f"depends: {task['depends']}"
                return self._end(path, task["template"], _Outcome(OMITTED), since=since, message=message)
            if "withParam" in task:
                return self._fan_out(task, path, scope, since)
            return self._call(task, path, scope)
        except ExpressionError as impossible:
            return self._end(path, task["template"], _Outcome(ERROR, 2), since=since, message=str(impossible))

    def _fan_out(self, task: dict[str, Any], path: str, scope: Scope, since: float) -> _Outcome:
        when = task.get("when", "")
        if when and not any(tag.split(".")[0] == "item" for tag in tags(when)) and not evaluate_when(when, scope):
            return self._end(path, task["template"], _Outcome(SKIPPED), since=since, message=f"when: {when}")
        items = items_of(substitute(task["withParam"], scope))
        if not items:
            return self._end(path, task["template"], _Outcome(SKIPPED), since=since, message="nothing to fan out over")
        scopes = [{**scope, **item_scope(item)} for item in items]
        ended = tuple(self._item(task, f"{path}({n})", each) for n, each in enumerate(scopes))
        bad = [item.phase for item in ended if item.phase in _BAD]
        message = f"{len(bad)} of {len(ended)} items failed" if bad else ""
        group = _Outcome(bad[0] if bad else SUCCEEDED, worst(e.exit_code for e in ended), _gathered(ended), ended)
        return self._end(path, task["template"], group, since=since, message=message)

    def _item(self, task: dict[str, Any], path: str, scope: Scope) -> _Outcome:
        since = time.perf_counter()
        try:
            return self._call(task, path, scope)
        except ExpressionError as impossible:
            return self._end(path, task["template"], _Outcome(ERROR, 2), since=since, message=str(impossible))

    def _call(self, task: dict[str, Any], path: str, scope: Scope) -> _Outcome:
        if task.get("when") and not evaluate_when(task["when"], scope):
            ended = _Outcome(SKIPPED)
            return self._end(path, task["template"], ended, since=time.perf_counter(), message=f"when: {task['when']}")
        wanted = inputs_of(self.templates[task["template"]])
        given: dict[str, str] = {}
        for argument in task.get("arguments", {}).get("parameters", []):
            value = _text(argument["value"])
            try:
                given[argument["name"]] = substitute(value, scope)
            except AbsentError as absent:
                # Argo >= 4.0.7: an argument that is nothing but an absent output is left out, and the default applies
                if _default(wanted[argument["name"]]) is None or value.strip() != f"{{{{{tags(value)[0]}}}}}":
                    raise ExpressionError(f"{absent}, and input {argument['name']!r} has no default") from None
        return self._template(task["template"], path, given)

    def _scope_of(self, task: dict[str, Any], ended: _Outcome) -> dict[str, str | None]:
        """Return what tags about an ended task stand for."""
        prefix = f"tasks.{task['name']}"
        outputs = [o["name"] for o in self.templates[task["template"]].get("outputs", {}).get("parameters", [])]
        return {
            f"{prefix}.status": ended.phase,
            f"{prefix}.exitCode": None if ended.exit_code is None else str(ended.exit_code),
            **{f"{prefix}.outputs.parameters.{name}": ended.outputs.get(name) for name in outputs},
        }


def _dag_phase(parents: Mapping[str, list[str]], done: Mapping[str, _Outcome]) -> str:
    """Return a DAG's phase as Argo assesses it: by its last tasks; one that did not run has its parents' phase.

    So a failure whose every successor ran and succeeded (`depends: x.Failed`) leaves the DAG Succeeded.
    """
    phases: dict[str, str] = {}
    for name, ended in done.items():
        inherited = [phases[parent] for parent in parents[name]]
        bad = next((phase for phase in inherited if phase in _BAD), SUCCEEDED)
        phases[name] = bad if ended.phase in _NOT_RUN else ended.phase
    last = set(done) - {parent for names in parents.values() for parent in names}
    return next((phases[name] for name in done if name in last and phases[name] in _BAD), SUCCEEDED)


def _holds(operand: Operand, ended: _Outcome) -> bool:
    phases = [item.phase for item in ended.items or ()]
    if operand.result == "AnySucceeded":
        return SUCCEEDED in phases
    if operand.result == "AllFailed":
        return bool(phases) and set(phases) == {FAILED}
    return ended.phase == (ERROR if operand.result == "Errored" else operand.result)


def _gathered(items: tuple[_Outcome, ...]) -> dict[str, str]:
    """Return each output of a fan-out's items as one list; items that did not succeed are left out, as Argo does."""
    ran = [item for item in items if item.phase == SUCCEEDED]
    names = dict.fromkeys(name for item in ran for name in item.outputs)
    return {name: aggregate([item.outputs[name] for item in ran if name in item.outputs]) for name in names}


def worst(codes: Iterable[int | None]) -> int:
    """Return the exit code that says most: refused, then terminal, then anything else."""
    failed = {code for code in codes if code}
    return next((code for code in (3, 2) if code in failed), 1 if failed else 0)


def _default(parameter: Mapping[str, Any]) -> Any:
    return parameter.get("value", parameter.get("default"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _seconds(since: float) -> float:
    return round(time.perf_counter() - since, 3)

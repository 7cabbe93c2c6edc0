"""Follow every reference inside one WorkflowTemplate: templates, arguments, tags, `depends`, outputs.

This is what `argo lint` would say, and two things it does not: a bare name in `depends`, and a task that reads the output
of one it does not wait for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lockstep.errors import nearest
from pipelines._expressions import RESULTS, ExpressionError, depends_on, tags
from pipelines._library import Library, Templates, UnknownTemplateError, calls_of

GLOBALS = ("workflow.name", "workflow.namespace", "workflow.uid", "workflow.status", "workflow.failures")


@dataclass(frozen=True)
class Problem:
    """One reference that does not hold: where in the document, what is wrong, what to do."""

    where: str
    what: str
    hint: str = ""


def lint(manifest: Mapping[str, Any], library: Library | None = None) -> Iterator[Problem]:
    """Yield what is wrong with the references of a WorkflowTemplate.

    Args:
        manifest: the document.
        library: WorkflowTemplates by name, of which it may refer to some.
    """
    spec = manifest["spec"]
    by_name = {template["name"]: template for template in spec.get("templates", [])}
    if len(by_name) != len(spec.get("templates", [])):
        names = [template["name"] for template in spec["templates"]]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield Problem(name, f"two templates are called {name!r}", "rename one")
    for role in ("entrypoint", "onExit"):
        if (role == "entrypoint" or role in spec) and spec.get(role) not in by_name:
            yield Problem("spec", f"{role} {spec.get(role)!r} is no template", nearest(str(spec.get(role)), by_name))
    declared = {parameter["name"]: parameter for parameter in spec.get("arguments", {}).get("parameters", [])}
    yield from _unfed_inputs(spec, by_name, declared)
    templates = Templates(manifest, library or {})
    for template in by_name.values():
        yield from _Template(template, templates, set(declared)).problems()


def _unfed_inputs(
    spec: Mapping[str, Any], by_name: Mapping[str, Any], declared: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yield inputs of the two templates that Argo itself calls, with the workflow's arguments."""
    for role in ("entrypoint", "onExit"):
        for name, parameter in inputs_of(by_name.get(spec.get(role), {})).items():
            if name not in declared and not _optional(parameter):
                hint = "declare it among the WorkflowTemplate's arguments"
                yield Problem(str(spec[role]), f"input {name!r} of the {role} template is given by nobody", hint)


class _Template:
    """The references of one template."""

    def __init__(self, template: Mapping[str, Any], templates: Templates, arguments: set[str]) -> None:
        self.template, self.templates = template, templates
        self.name: str = template["name"]
        self.known = {*GLOBALS, "workflow.parameters", "inputs.parameters"}
        self.known |= {f"workflow.parameters.{name}" for name in arguments}
        self.known |= {f"inputs.parameters.{name}" for name in inputs_of(template)}
        self.tasks = {call["name"]: call for call in calls_of(template)}
        self.prefix = "steps." if "steps" in template else "tasks."

    def problems(self) -> Iterator[Problem]:
        if len(self.tasks) != len(list(calls_of(self.template))):
            yield Problem(self.name, "two tasks have the same name", "pass name=… to one of the calls")
        waits: dict[str, set[str]] = {}
        for name, task in self.tasks.items():
            yield from self._depends(task)
            waits[name] = set(_operand_tasks(task)) & set(self.tasks)
        earlier: set[str] = set()
        for group in self.template.get("steps", []):
            waits |= {step["name"]: set(earlier) for step in group}
            earlier |= {step["name"] for step in group}
        before = {name: _closure(name, waits) for name in self.tasks}
        for name in sorted(name for name, earlier in before.items() if name in earlier):
            yield Problem(f"{self.name}/{name}", f"task {name!r} waits for itself", "break the circle in depends")
        for name, task in self.tasks.items():
            yield from self._task(task, before[name])
        for output in self.template.get("outputs", {}).get("parameters", []):
            at = f"{self.name}/outputs/{output['name']}"
            yield from self._tags(at, output.get("valueFrom", {}).get("parameter", ""), set(self.tasks))
        for variable in self.template.get("script", {}).get("env", []):
            yield from self._tags(f"{self.name}/env/{variable['name']}", str(variable.get("value", "")), set())

    def _depends(self, task: Mapping[str, Any]) -> Iterator[Problem]:
        at = f"{self.name}/{task['name']}"
        try:
            operands = depends_on(task.get("depends", ""))
        except ExpressionError as unreadable:
            yield Problem(at, f"depends: {unreadable}", "names with a result, joined by && || ! ()")
            return
        for name in task.get("dependencies", []):
            yield Problem(at, f"dependencies: {name}", f"write depends: {name}.Succeeded")
        for operand in operands:
            if operand.task not in self.tasks:
                yield Problem(at, f"depends on {operand.task!r}, which is no task", nearest(operand.task, self.tasks))
            if operand.result is None:
                yield Problem(
                    at,
                    f"depends on the bare name {operand.task!r}, which is satisfied by a skipped task too",
                    f"write {operand.task}.Succeeded: wrap >> in `with Task.set_next_defaults(on=TaskResult.succeeded)`",
                )
            elif operand.result not in RESULTS:
                yield Problem(at, f"{operand.result!r} is no task result", nearest(operand.result, RESULTS))

    def _task(self, task: Mapping[str, Any], before: set[str]) -> Iterator[Problem]:
        at = f"{self.name}/{task['name']}"
        try:
            yield from _arguments(at, task, self.templates.called(task, self.templates.name).template)
        except UnknownTemplateError as unknown:
            yield Problem(at, unknown.what, unknown.hint)
        given = [str(p.get("value", "")) for p in task.get("arguments", {}).get("parameters", [])]
        item = "withParam" in task
        for text in [*given, task.get("when", "")]:
            yield from self._tags(at, text, before, item=item)
        yield from self._tags(at, task.get("withParam", ""), before)

    def _tags(self, at: str, text: str, before: set[str], *, item: bool = False) -> Iterator[Problem]:
        for tag in tags(text):
            if tag in self.known or (item and (tag == "item" or tag.startswith("item."))) or tag.startswith("="):
                continue
            task, _, rest = tag.removeprefix(self.prefix).partition(".")
            if not tag.startswith(self.prefix):
                yield Problem(at, f"{{{{{tag}}}}} resolves to nothing", nearest(tag, self.known))
            elif task not in self.tasks:
                yield Problem(at, f"{{{{{tag}}}}}: {task!r} is no task", nearest(task, self.tasks))
            elif task not in before:
                hint = f"add {task}.Succeeded to depends"
                yield Problem(at, f"reads {{{{{tag}}}}} and does not wait for {task!r}", hint)
            elif rest not in ("status", "exitCode"):
                yield from self._output(at, tag, task, rest)

    def _output(self, at: str, tag: str, task: str, rest: str) -> Iterator[Problem]:
        try:
            callee = self.templates.called(self.tasks[task], self.templates.name).template
        except UnknownTemplateError:
            return  # reported by _task
        outputs = {o["name"] for o in callee.get("outputs", {}).get("parameters", [])}
        if rest.removeprefix("outputs.parameters.") not in outputs:
            valid = [f"{self.prefix}{task}.outputs.parameters.{name}" for name in outputs]
            yield Problem(at, f"{{{{{tag}}}}}: {callee.get('name')!r} has no such output", nearest(tag, valid))


def inputs_of(template: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return a template's input parameters by name."""
    return {p["name"]: p for p in template.get("inputs", {}).get("parameters", [])}


def _optional(parameter: Mapping[str, Any]) -> bool:
    return "default" in parameter or "value" in parameter


def _arguments(at: str, task: Mapping[str, Any], callee: Mapping[str, Any]) -> Iterator[Problem]:
    wanted = inputs_of(callee)
    given = {p["name"] for p in task.get("arguments", {}).get("parameters", [])}
    for name in sorted(given - set(wanted)):
        yield Problem(at, f"{callee['name']!r} has no input {name!r}", nearest(name, wanted))
    for name in [n for n, parameter in wanted.items() if n not in given and not _optional(parameter)]:
        yield Problem(
            at,
            f"input {name!r} of {callee['name']!r} is not given",
            "pass arguments={…}: Hera drops an Input that is passed positionally, without an error",
        )


def _operand_tasks(task: Mapping[str, Any]) -> list[str]:
    try:
        return [operand.task for operand in depends_on(task.get("depends", ""))]
    except ExpressionError:
        return []  # reported by _depends


def _closure(name: str, waits: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    queue = list(waits[name])
    while queue:
        if (task := queue.pop()) not in seen:
            seen.add(task)
            queue += waits[task]
    return seen

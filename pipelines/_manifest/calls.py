"""What a DAG or a steps template calls: which template, after what, with which arguments."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lockstep.errors import nearest
from pipelines._checks.problem import Place, Problem
from pipelines._manifest.expressions import RESULTS, ExpressionError, check_when, depends_on, items_of, tags

Template = Mapping[str, Any]
Name = tuple[str, str]
"""A WorkflowTemplate, and one of its templates."""


@dataclass(frozen=True)
class Call:
    """One task of a DAG, or one step of a steps template.

    Attributes:
        path: from the document's root.
        body: the task or step.
        callee: the template it calls, and of which document; None if there is no such template.
        before: the calls of the same template that have ended when this one starts.
    """

    path: Place
    body: Mapping[str, Any]
    callee: Name | None
    before: frozenset[str]

    @property
    def name(self) -> str:
        """The task's or step's name."""
        return str(self.body.get("name", ""))


class Templates:
    """The templates that a workflow reaches: its own, and by `templateRef` those of other WorkflowTemplates."""

    def __init__(self, manifest: Mapping[str, Any], library: Mapping[str, Mapping[str, Any]]) -> None:
        self.own = str(manifest.get("metadata", {}).get("name", ""))
        documents = {**library, self.own: manifest}
        self.documents = {
            name: {str(t["name"]): t for t in document["spec"].get("templates", [])}
            for name, document in documents.items()
        }

    def __getitem__(self, name: Name) -> Template:
        return self.documents[name[0]][name[1]]

    def callee(self, document: str, body: Mapping[str, Any]) -> Name | None:
        """Return what a task or step of a document calls, or None if there is no such template."""
        reference = body.get("templateRef", {"name": document, "template": body.get("template")})
        if reference.get("clusterScope"):
            return None
        name = (str(reference.get("name")), str(reference.get("template")))
        return name if name[1] in self.documents.get(name[0], {}) else None

    def reached_from(self, name: Name) -> set[Name]:
        """Return a template and all that it calls, by and by."""
        seen: set[Name] = set()
        queue = [name]
        while queue:
            if (found := queue.pop()) not in seen:
                seen.add(found)
                queue += [n for _, body in bodies(self[found]) if (n := self.callee(found[0], body)) is not None]
        return seen


def bodies(template: Template) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Yield the tasks or steps of a template with their paths below it."""
    for index, task in enumerate(template.get("dag", {}).get("tasks", [])):
        yield ("dag", "tasks", index), task
    for turn, group in enumerate(template.get("steps", [])):
        for index, step in enumerate(group):
            yield ("steps", turn, index), step


def calls_of(template: Template, at: Place, templates: Templates) -> list[Call]:
    """Return the calls of one of the workflow's own templates, which is at the path `at`."""
    found = list(bodies(template))
    before = _before_tasks(template) if "dag" in template else _before_steps(template)
    return [
        Call((*at, *path), body, templates.callee(templates.own, body), before.get(str(body.get("name")), frozenset()))
        for path, body in found
    ]


def call_problems(calls: list[Call], templates: Templates) -> Iterator[Problem]:
    """Yield what is wrong with the calls of one template: names, order, callees, arguments."""
    names = [call.name for call in calls]
    for position, call in enumerate(calls):
        if call.name in names[:position]:
            yield Problem(call.path, f"two calls are named {call.name!r}", "pass name=… to one of the calls")
        yield from _depends(call, names)
        yield from when_problems(call.body, call.path)
        yield from _items(call)
        if call.name in call.before:
            yield Problem(call.path, f"task {call.name!r} waits for itself", "break the circle in depends")
        if call.callee is None:
            yield _no_callee(call, templates)
        else:
            yield from _arguments(call, templates[call.callee])


def when_problems(holder: Mapping[str, Any], path: Place) -> Iterator[Problem]:
    """Yield what is wrong with the `when` of a call or a metric, if it has one."""
    if when := holder.get("when"):
        try:
            check_when(str(when))
        except ExpressionError as unreadable:
            hint = "compare words, numbers and 'quoted texts' with == != < > under && || ! ()"
            yield Problem((*path, "when"), str(unreadable), hint)


def inputs_of(template: Template) -> dict[str, Mapping[str, Any]]:
    """Return a template's input parameters by name."""
    return {p["name"]: p for p in template.get("inputs", {}).get("parameters", [])}


def literal(value: Any) -> str:
    """Return a parameter's value as Argo reads it from YAML: as text."""
    return value if isinstance(value, str) else json.dumps(value)


def is_optional(parameter: Mapping[str, Any]) -> bool:
    """Return whether an input has a value when nobody gives it one."""
    return "default" in parameter or "value" in parameter


def _no_callee(call: Call, templates: Templates) -> Problem:
    reference = call.body.get("templateRef")
    if reference is None:
        name = str(call.body.get("template", ""))
        what = f"calls {call.body.get('template')!r}, which is no template"
        return Problem((*call.path, "template"), what, nearest(name, templates.documents[templates.own]))
    path = (*call.path, "templateRef")
    document, template = str(reference.get("name")), str(reference.get("template"))
    if reference.get("clusterScope"):
        what = "calls a ClusterWorkflowTemplate, and none is rendered"
        return Problem(path, what, "name a WorkflowTemplate: drop clusterScope")
    if document not in templates.documents:
        what = f"calls a template of {document!r}, which is no WorkflowTemplate that is rendered"
        return Problem((*path, "name"), what, nearest(document, templates.documents))
    what = f"calls {template!r}, which is no template of {document!r}"
    return Problem((*path, "template"), what, nearest(template, templates.documents[document]))


def _depends(call: Call, names: list[str]) -> Iterator[Problem]:
    path = (*call.path, "depends")
    try:
        operands = depends_on(call.body.get("depends", ""))
    except ExpressionError as unreadable:
        yield Problem(path, f"depends: {unreadable}", "names with a result, joined by && || ! ()")
        return
    for name in call.body.get("dependencies", []):
        yield Problem((*call.path, "dependencies"), f"dependencies: {name}", f"write depends: {name}.Succeeded")
    for operand in operands:
        if operand.task not in names:
            yield Problem(path, f"depends on {operand.task!r}, which is no task", nearest(operand.task, names))
        if operand.result is None:
            yield Problem(
                path,
                f"depends on the bare name {operand.task!r}, which is satisfied by a skipped task too",
                f"write {operand.task}.Succeeded: wrap >> in `with Task.set_next_defaults(on=TaskResult.succeeded)`",
            )
        elif operand.result not in RESULTS:
            yield Problem(path, f"{operand.result!r} is no task result", nearest(operand.result, RESULTS))


def _items(call: Call) -> Iterator[Problem]:
    if not tags(given := str(call.body.get("withParam", "[]"))):
        try:
            items_of(given)
        except ExpressionError as unreadable:
            yield Problem((*call.path, "withParam"), str(unreadable), "a JSON list, or a tag that stands for one")


def _arguments(call: Call, callee: Template) -> Iterator[Problem]:
    wanted = inputs_of(callee)
    given = [str(p["name"]) for p in call.body.get("arguments", {}).get("parameters", [])]
    for index, name in enumerate(given):
        path = (*call.path, "arguments", "parameters", index)
        if name not in wanted:
            yield Problem(path, f"{callee['name']!r} has no input {name!r}", nearest(name, wanted))
        if name in given[:index]:
            yield Problem(path, f"argument {name!r} is given twice", "remove one")
    for name in [n for n, parameter in wanted.items() if n not in given and not is_optional(parameter)]:
        yield Problem(
            call.path,
            f"input {name!r} of {callee['name']!r} is not given",
            "pass arguments={…}: Hera drops an Input that is passed positionally, without an error",
        )


def _before_steps(template: Template) -> dict[str, frozenset[str]]:
    """Return, for each step, those of the groups before its own: a group starts when the one before it has ended."""
    before: dict[str, frozenset[str]] = {}
    earlier: frozenset[str] = frozenset()
    for group in template.get("steps", []):
        names = [str(step.get("name")) for step in group]
        before |= dict.fromkeys(names, earlier)
        earlier |= frozenset(names)
    return before


def _before_tasks(template: Template) -> dict[str, frozenset[str]]:
    """Return, for each task, those it waits for, by and by; itself among them if it waits in a circle."""
    tasks = {str(task.get("name")): task for task in template.get("dag", {}).get("tasks", [])}
    waits = {name: set(_operand_tasks(task)) & set(tasks) for name, task in tasks.items()}
    return {name: _closure(name, waits) for name in tasks}


def _operand_tasks(task: Mapping[str, Any]) -> list[str]:
    try:
        return [operand.task for operand in depends_on(task.get("depends", ""))]
    except ExpressionError:
        return []  # reported by _depends


def _closure(name: str, waits: Mapping[str, set[str]]) -> frozenset[str]:
    seen: set[str] = set()
    queue = list(waits[name])
    while queue:
        if (task := queue.pop()) not in seen:
            seen.add(task)
            queue += waits[task]
    return frozenset(seen)

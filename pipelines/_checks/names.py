"""What things are called and may be worth: names that Argo takes, each given once, and values that are in their `enum`.

The patterns are those of Argo 4.0.7's `workflow/validate` (`workflowFieldNameFmt`, `paramOrArtifactNameRegex`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lockstep.errors import nearest
from pipelines._checks.problem import Place, Problem
from pipelines._manifest.calls import Call, Templates, inputs_of, literal
from pipelines._manifest.expressions import tags

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-]{0,127}")
_PARAMETER = re.compile(r"[a-zA-Z0-9_-]+")


def name_problems(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the names in a WorkflowTemplate that Argo refuses, and those that are given twice."""
    yield from _parameters(spec.get("arguments", {}), ("spec", "arguments"), "arguments")
    templates = spec.get("templates", [])
    yield from _twice(templates, ("spec", "templates"), "templates")
    for index, template in enumerate(templates):
        at = ("spec", "templates", index)
        yield from _name(str(template.get("name", "")), at, "template")
        for key in ("inputs", "outputs"):
            yield from _parameters(template.get(key, {}), (*at, key), key)


def call_name_problems(calls: Iterable[Call]) -> Iterator[Problem]:
    """Yield the tasks and steps of one template that Argo refuses for their names."""
    calls = list(calls)
    for call in calls:
        yield from _name(call.name, call.path, "task or step")
        if call.name[:1].isdigit() and any("depends" in other.body for other in calls):
            what = f"task {call.name!r} begins with a digit, which Argo refuses in a DAG that has depends"
            yield Problem(call.path, what, "let it begin with a letter")


def value_problems(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the values and defaults of a WorkflowTemplate's arguments and inputs that are not in the parameter's enum."""
    yield from _declared(spec.get("arguments", {}), ("spec", "arguments"))
    for index, template in enumerate(spec.get("templates", [])):
        yield from _declared(template.get("inputs", {}), ("spec", "templates", index, "inputs"))


def argument_problems(calls: Iterable[Call], templates: Templates) -> Iterator[Problem]:
    """Yield the literal values that are given to an input whose enum does not have them."""
    for call in calls:
        inputs = inputs_of(templates[call.callee]) if call.callee is not None else {}
        for index, given in enumerate(call.body.get("arguments", {}).get("parameters", [])):
            path = (*call.path, "arguments", "parameters", index)
            yield from not_in_enum(inputs.get(str(given.get("name")), {}), given.get("value"), path)


def not_in_enum(declared: Mapping[str, Any], value: Any, path: Place) -> Iterator[Problem]:
    """Yield that a value is not among those that a parameter allows; a tag may be anything."""
    allowed = [literal(each) for each in declared.get("enum") or ()]
    if value is None or not allowed or tags(given := literal(value)) or given in allowed:
        return
    yield Problem(path, f"{given!r} is not in the enum of {declared['name']!r}", nearest(given, allowed))


def _declared(holder: Mapping[str, Any], path: Place) -> Iterator[Problem]:
    for index, parameter in enumerate(holder.get("parameters", [])):
        at = (*path, "parameters", index)
        if "enum" in parameter and not parameter["enum"]:
            yield Problem(at, f"the enum of {parameter['name']!r} is empty: no value would do", "remove it")
        for key in ("value", "default"):
            yield from not_in_enum(parameter, parameter.get(key), at)


def _parameters(holder: Mapping[str, Any], path: Place, kind: str) -> Iterator[Problem]:
    parameters = holder.get("parameters", [])
    yield from _twice(parameters, (*path, "parameters"), kind)
    for index, parameter in enumerate(parameters):
        if not _PARAMETER.fullmatch(str(parameter.get("name", ""))):
            what = f"{parameter.get('name')!r} is no name of a parameter"
            yield Problem((*path, "parameters", index), what, "letters, digits, underscores and hyphens")


def _twice(named: list[Mapping[str, Any]], path: Place, kind: str) -> Iterator[Problem]:
    names = [each.get("name") for each in named]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Problem((*path, index), f"two {kind} are called {name!r}", "rename one")


def _name(name: str, path: Place, kind: str) -> Iterator[Problem]:
    if not _NAME.fullmatch(name):
        hint = "letters, digits and hyphens, no hyphen first, 128 characters at most"
        yield Problem(path, f"{name!r} is no name of a {kind}", hint)

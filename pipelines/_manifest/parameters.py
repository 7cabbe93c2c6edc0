"""Workflow parameters that a person gave, checked against what the WorkflowTemplate declares before anything runs or is sent.

A parameter of one of the names in `TIMES` is a time in every pipeline, and a pair in `WINDOWS` is a window: the names are the
declaration, so that the rendered YAML needs none beside them.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from lockstep.clock import parse_time
from lockstep.errors import BadInput, nearest

WINDOWS = (("start", "end"), ("since", "until"))
"""Parameters that are the two ends of a window."""

TIMES = frozenset({"window_end", "known_at"}.union(*WINDOWS))
"""Parameters that are times: ISO 8601 (so RFC 3339) with a zone, as the steps read them."""


def parse_pairs(texts: Iterable[str], option: str = "-p") -> dict[str, str]:
    """Return what `-p NAME=VALUE` gave, or another option of that form; a value may hold anything.

    Raises:
        BadInput: one is not NAME=VALUE, or a name is given twice.
    """
    given: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadInput(f"{option} {text!r} is not NAME=VALUE")
        if name in given:
            raise BadInput(f"{option} {name}=… is given twice")
        given[name] = value
    return given


def arguments(manifest: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """Return the value of every parameter of a WorkflowTemplate: the given one, or its default.

    Args:
        manifest: the template's document.
        given: values by name.

    Raises:
        BadInput: a parameter is unknown, missing, or not among the values its declaration allows; a time is none or has no
            zone; a window ends before it begins, or with it.
    """
    name = manifest["metadata"]["name"]
    declared = {p["name"]: p for p in manifest["spec"].get("arguments", {}).get("parameters", [])}
    for parameter in given:
        if parameter not in declared:
            raise BadInput(f"workflow {name!r} has no parameter {parameter!r}", hint=nearest(parameter, declared))
    values: dict[str, str] = {}
    for parameter, declaration in declared.items():
        value = given.get(parameter, _default(declaration))
        if value is None:
            description = declaration.get("description", "")
            hint = f"pass -p {parameter}=…" + (f" ({description})" if description else "")
            raise BadInput(f"workflow {name!r} needs a value for its parameter {parameter!r}", hint=hint)
        if declaration.get("enum") and value not in declaration["enum"]:
            raise BadInput(f"parameter {parameter!r} cannot be {value!r}", hint=nearest(value, declaration["enum"]))
        values[parameter] = value if isinstance(value, str) else json.dumps(value)
    # A default that stays is the template's own affair: it may be empty, or a tag that Argo replaces.
    times = {
        parameter: parse_time(given[parameter], f"parameter {parameter!r}")
        for parameter in declared
        if parameter in TIMES and parameter in given and given[parameter] != _default(declared[parameter])
    }
    _require_windows(times)
    return values


def _require_windows(times: Mapping[str, datetime]) -> None:
    for first, last in WINDOWS:
        if first in times and last in times and times[first] >= times[last]:
            said = "ends before it begins" if times[first] > times[last] else "is empty"
            raise BadInput(
                f"the window {said}: {first} is {times[first].isoformat()}, {last} is {times[last].isoformat()}",
                hint=f"{first} has to be before {last}",
            )


def _default(declaration: Mapping[str, Any]) -> Any:
    return declaration.get("value", declaration.get("default"))

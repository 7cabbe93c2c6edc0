"""Mutexes that a run would wait for while it holds them itself: such a run never ends.

https://argo-workflows.readthedocs.io/en/latest/synchronization/
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines._checks.problem import Place, Problem
from pipelines._manifest.calls import Name, Templates
from pipelines._manifest.expressions import TAG


def lock_problems(spec: Mapping[str, Any], templates: Templates) -> Iterator[Problem]:
    """Yield the mutexes that are wanted below where they are held: by the workflow, or by a template that calls another."""
    below = set[Name]()
    for role in ("entrypoint", "onExit"):
        if (entry := templates.callee(templates.own, {"template": spec.get(role)})) is not None:
            below |= templates.reached_from(entry)
    yield from _held(spec, "the workflow", ("spec",), below, templates)
    for index, template in enumerate(spec.get("templates", [])):
        own = (templates.own, str(template["name"]))
        at = ("spec", "templates", index)
        yield from _held(template, own[1], at, templates.reached_from(own) - {own}, templates)


def _held(holder: Mapping[str, Any], who: str, at: Place, below: set[Name], templates: Templates) -> Iterator[Problem]:
    for index, name in enumerate(_mutexes(holder)):
        for document, wanting in sorted(below):
            if any(_may_be(name, wanted) for wanted in _mutexes(templates[document, wanting])):
                where = wanting if document == templates.own else f"{document}/{wanting}"
                what = f"{who} holds the mutex {name!r}, and {where} below it would wait for that for ever"
                yield Problem((*at, "synchronization", "mutexes", index), what, "rename one of the two")


def _mutexes(holder: Mapping[str, Any]) -> list[str]:
    return [str(mutex.get("name")) for mutex in holder.get("synchronization", {}).get("mutexes", [])]


def _may_be(held: str, wanted: str) -> bool:
    """Tell whether a name with tags in it can come out as another; of two with tags nothing is known but that they differ."""
    if TAG.search(held):
        return False
    literals = TAG.split(wanted)[::2]  # each tag's own name is between them
    return re.fullmatch(".+".join(map(re.escape, literals)), held) is not None

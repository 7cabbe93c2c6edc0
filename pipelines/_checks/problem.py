"""One thing that is wrong in a YAML document: where it is, in words and by line, and what to do about it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

Place = tuple[str | int, ...]
"""The keys and indices from a document's root to a value: `("spec", "templates", 0, "dag")`."""


@dataclass(frozen=True)
class Problem:
    """What does not hold.

    Attributes:
        path: to the value, or to where one is missing.
        what: what is wrong.
        hint: what to do.
        where: the path in words; empty until `located`.
        source: the Python that made the value, as `file:line`, where it is known better than by the file's header.
    """

    path: Place
    what: str
    hint: str = ""
    where: str = ""
    source: str = ""


def located(document: Mapping[str, Any], problems: Iterable[Problem]) -> Iterator[Problem]:
    """Put each problem's path into words: the names on the way (template/task/parameter), or the keys where there are none."""
    for problem in problems:
        yield replace(problem, where=_words(document, problem.path))


def texts(value: object, path: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield every text inside a value with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from texts(inner, (*path, index))


class Lines:
    """The lines of a YAML text, by path."""

    def __init__(self, text: str) -> None:
        # libyaml: the same composer in Python takes 60 ms a document.
        self._root = yaml.compose(text, Loader=yaml.CSafeLoader)

    def line(self, path: Place) -> int:
        """Return the line of a value's key (of a list's item: its first line), counted from 1.

        A part of the path that is not there is passed over: the line is then that of what should hold it. So is what pydantic
        puts into a path for the members of a union.
        """
        node = self._root
        line = node.start_mark.line if node is not None else 0
        for part in path:
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
                if found is not None:
                    line, node = found[0].start_mark.line, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line
        return line + 1


def _words(document: Mapping[str, Any], path: Place) -> str:
    """Return template/task/parameter for a place in a template, else the keys, with names for indices where there are some."""
    parts: list[str] = []
    value: Any = document
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
        named = isinstance(part, int) and isinstance(value, Mapping) and "name" in value
        if named or path[:2] != ("spec", "templates"):
            parts.append(str(value["name"]) if named else str(part))
    return ("/" if path[:2] == ("spec", "templates") else ".").join(parts)

"""What is wrong in the Python that renders without an error: Hera's traps that leave no trace in the YAML, or the wrong one.

The files are read, not imported; only objects that two steps share are looked for in what rendering has imported.
"""

import ast
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from hera.workflows import Artifact, Parameter
from pydantic import BaseModel

from pipelines._checks.sources import modules_of, parsed, readable, step_packages, steps_of

_CONNECTION = {"host", "token", "namespace", "verify_ssl", "client_certs"}
"""What Hera's `global_config` is for when a workflow is submitted; it changes nothing that is rendered."""


@dataclass(frozen=True)
class SourceProblem:
    """One line of Python that does not do what it says."""

    file: str
    line: int
    what: str
    hint: str


def source_problems(package: str) -> list[SourceProblem]:
    """Return what is wrong in the modules of a package of pipelines, and of the packages of their steps."""
    steps = step_packages(package)
    found: list[SourceProblem] = []
    for path in modules_of(package).values():
        found += [*_traps(path), *_positional(path, steps)]
    for each in steps:
        defining = {step.file for same in steps_of(each).values() for step in same}
        for path in modules_of(each).values():
            found += _traps(path)
            if path in defining:
                found += _string_annotations(path)
    return found


def shared_annotations(package: str) -> list[SourceProblem]:
    """Return the Hera objects that annotations of two steps share, among the step modules that are imported."""
    owners: dict[int, tuple[object, tuple[str, int, str]]] = {}
    found: list[SourceProblem] = []
    for each in step_packages(package):
        for module in modules_of(each):
            for note, owner in _annotations(sys.modules.get(module)):
                _, first = owners.setdefault(id(note), (note, owner))
                if first != owner:
                    kind = type(note).__name__
                    what = f"{owner[2]} is annotated with the same {kind} object as {first[2]} ({first[0]}:{first[1]})"
                    hint = f"Hera changes a {kind} in place when it builds a template: write one for each"
                    found.append(SourceProblem(owner[0], owner[1], what, hint))
    return found


def _traps(path: Path) -> Iterator[SourceProblem]:
    file = readable(path)
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef) and any("pre_build_hook" in _name(d) for d in node.decorator_list):
            yield SourceProblem(
                file,
                node.lineno,
                f"{node.name!r} is a pre-build hook: with string annotations Hera never runs it, on a CronWorkflow it runs"
                " it twice",
                "put what it sets into steps/_step.py or pipelines/_template.py",
            )
        elif isinstance(node, ast.Call) and _name(node.func) == "on_success":
            yield SourceProblem(
                file,
                node.lineno,
                "a.on_success(b) makes b depend on a; its docstring says the opposite",
                "write a >> b under `with Task.set_next_defaults(on=TaskResult.succeeded)`",
            )
        elif isinstance(node, ast.Call) and _name(node.func) == "set_class_defaults":
            yield _too_late(file, node.lineno, "set_class_defaults(…)")
        elif _sets_global(node):
            yield _too_late(file, node.lineno, f"global_config.{node.attr} = …")


def _sets_global(node: ast.AST) -> TypeGuard[ast.Attribute]:
    if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
        return False
    return _name(node.value) == "global_config" and node.attr not in _CONNECTION


def _too_late(file: str, line: int, what: str) -> SourceProblem:
    return SourceProblem(
        file,
        line,
        f"{what} is silently ignored for every step that was imported before it: Hera builds a script when it is decorated",
        "give the value to steps/_step.step, or to the step",
    )


def _string_annotations(path: Path) -> Iterator[SourceProblem]:
    for node in parsed(path).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        if "annotations" in names and getattr(node, "module", "") == "__future__":
            what = "a step's annotations are strings here, and Hera reads them as types"
            hint = "remove `from __future__ import annotations` from this module"
            yield SourceProblem(readable(path), node.lineno, what, hint)


def _positional(path: Path, packages: list[str]) -> Iterator[SourceProblem]:
    """Only where workflows are defined: elsewhere a step is a function like any other."""
    imported = {(node.module, alias.asname or alias.name) for node in _import_froms(path) for alias in node.names}
    if not any(str(module).startswith("hera.workflows") for module, _ in imported):
        return
    ours = {name for module, name in imported if str(module) in packages or str(module).rpartition(".")[0] in packages}
    steps = {name for package in packages for name in steps_of(package)}
    for node in ast.walk(parsed(path)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        holder = node.func.value if isinstance(node.func, ast.Attribute) else node.func
        if _name(node.func) in steps and _name(holder) in ours:
            yield SourceProblem(
                readable(path),
                node.lineno,
                f"step {_name(node.func)!r} is called with a positional argument inside a workflow",
                "Hera drops it and renders a task without arguments: call it with arguments={...}",
            )


def _import_froms(path: Path) -> Iterator[ast.ImportFrom]:
    return (node for node in parsed(path).body if isinstance(node, ast.ImportFrom))


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _annotations(module: ModuleType | None) -> Iterator[tuple[object, tuple[str, int, str]]]:
    """Yield each Parameter and Artifact in the annotations of a module's own functions and models, with who is annotated."""
    for name, value in vars(module).items() if module else ():
        if getattr(value, "__module__", None) != getattr(module, "__name__", None):
            continue
        function = getattr(value, "__wrapped__", value)
        is_model = isinstance(value, type) and issubclass(value, BaseModel)
        if not (is_model or isinstance(function, Callable)):
            continue
        own = vars(value).get("__annotations__", {}) if is_model else getattr(function, "__annotations__", {})
        for field, annotation in own.items():
            for note in _notes(annotation):
                yield note, (*_place(module, name), f"{name}.{field}")


def _notes(annotation: Any) -> Iterator[object]:
    for part in (annotation, *typing.get_args(annotation)):
        yield from (note for note in getattr(part, "__metadata__", ()) if isinstance(note, Parameter | Artifact))


def _place(module: ModuleType | None, name: str) -> tuple[str, int]:
    path = Path(str(getattr(module, "__file__", "")))
    lines = (n.lineno for n in parsed(path).body if getattr(n, "name", "") == name)
    return readable(path), next(lines, 1)

"""The Python that pipelines are rendered from, read without importing it: which file a module is, which steps it defines."""

import ast
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class StepFunction:
    """A function under `@step` or Hera's `@script`: where it is, and what it is called."""

    name: str
    module: str
    file: Path
    line: int


def file_of(module: str) -> Path | None:
    """Return the file of a module, or None if it has none or is not there.

    Only the root package is looked up, which imports nothing; the rest is the path below it.
    """
    root, *rest = module.split(".")
    if root in sys.stdlib_module_names:
        return None
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder, *rest)
        for candidate in (path / "__init__.py", path.with_suffix(".py")):
            if candidate.is_file():
                return candidate
    return None


def modules_of(package: str) -> dict[str, Path]:
    """Return the modules directly in a package, those with a leading underscore too, by name."""
    init = file_of(package)
    if init is None or init.name != "__init__.py":
        return {}
    return {f"{package}.{path.stem}": path for path in sorted(init.parent.glob("*.py")) if path != init}


def step_packages(package: str) -> list[str]:
    """Return the packages whose steps the pipelines of a package import at their top level."""
    imported = {name for path in modules_of(package).values() for name in _imports(parsed(path))}
    found = {name.rpartition(".")[0] for name in imported if (path := file_of(name)) and any(_steps_in(parsed(path)))}
    return sorted(found - {"", package})


@cache
def steps_of(package: str) -> Mapping[str, tuple[StepFunction, ...]]:
    """Return the step functions of a package by name."""
    found: dict[str, tuple[StepFunction, ...]] = {}
    for module, path in modules_of(package).items():
        for node in _steps_in(parsed(path)):
            step = StepFunction(node.name, module, path, node.lineno)
            found[node.name] = (*found.get(node.name, ()), step)
    return found


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file; an empty one if it is no Python, which importing it reports better."""
    return _parsed(path, path.stat().st_mtime_ns)


def readable(path: Path) -> str:
    """Return a path as one would open it: relative to the current folder where it is below it."""
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


@cache
def _parsed(path: Path, _changed: int) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _steps_in(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(_is_step(decorator) for decorator in node.decorator_list):
            yield node


def _is_step(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in ("step", "script")


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)

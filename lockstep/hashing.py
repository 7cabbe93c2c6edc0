"""Hashes that name things: canonical JSON, and the source of a function with all it imports from its own package."""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import orjson

from lockstep.errors import UseCaseError


def digest(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON (sorted keys, no spaces)."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def source_hash(module_name: str) -> str:
    """Return the SHA-256 of a module's source and of every module of the same top package that it imports.

    Raises:
        UseCaseError: the module has no source file.
    """
    seen: dict[str, str] = {}
    _collect_sources(module_name, seen)
    return digest(seen)


def _collect_sources(module_name: str, seen: dict[str, str]) -> None:
    if module_name in seen:
        return
    spec = importlib.util.find_spec(module_name)
    if spec is None or spec.origin is None:
        raise UseCaseError(f"{module_name} has no source file to hash")
    source = Path(spec.origin).read_bytes()
    seen[module_name] = hashlib.sha256(source).hexdigest()
    if not spec.origin.endswith(".py"):  # compiled: what it imports, nobody reads out of it
        return
    package = module_name if spec.submodule_search_locations else module_name.rpartition(".")[0]
    for imported in _imports(ast.parse(source), package):
        if imported.partition(".")[0] == module_name.partition(".")[0] and _is_module(imported):
            _collect_sources(imported, seen)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield what a module may import: `from a import b` names `a`, and `a.b`, which may be a module too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                if node.level
                else node.module
            )
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # `a.b` where `a` is no package
        return False

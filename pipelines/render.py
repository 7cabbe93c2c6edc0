"""Write every resource as committed YAML, and tell where the committed files no longer match the code."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import ModuleType

from hera.workflows import CronWorkflow, WorkflowTemplate

from lockstep.errors import BadInput
from pipelines._project import WORKFLOWS, pipeline_of

COMMAND = "lockstep render"
_MARK = "# Rendered from "
_KUSTOMIZATION = f"{WORKFLOWS}/kustomization.yaml"


@dataclass(frozen=True)
class Drift:
    """One committed file that is not what the code renders.

    Attributes:
        file: its path below the manifests' root.
        what: how it differs.
        hint: what to do about it.
    """

    file: str
    what: str
    hint: str = f"run `{COMMAND}` and commit what it wrote"


def render_all(package: str = "pipelines") -> dict[str, str]:
    """Return the text of every rendered file by its path below the manifests' root.

    Args:
        package: its modules' `RESOURCES` are rendered, those of modules with a leading underscore are not.

    Raises:
        BadInput: two resources want one file, or a name is not `<project>-<pipeline>` of at most 52 characters.
    """
    files: dict[str, str] = {}
    for module in _modules(package):
        builders: tuple[Callable[[], WorkflowTemplate | CronWorkflow], ...] = getattr(module, "RESOURCES", ())
        for build in builders:
            resource = build()
            path = f"{WORKFLOWS}/{pipeline_of(str(resource.name))}/{str(resource.kind).lower()}.yaml"
            if path in files:
                raise BadInput(
                    f"{module.__name__}: there is already a {resource.kind} {resource.name!r}", hint="rename one"
                )
            # A long expression stays on one line: yaml would fold it, and every edit would move its line breaks.
            files[path] = _header(f"{module.__name__.replace('.', '/')}.py") + resource.to_yaml(width=10_000)
    files[_KUSTOMIZATION] = _kustomization(sorted(files), package)
    return dict(sorted(files.items()))


def write(root: Path, package: str = "pipelines") -> list[str]:
    """Write the rendered files below `root` and delete those that nothing renders any more; return what changed.

    Files that do not say they were rendered are left alone.
    """
    files = render_all(package)
    changed = [drift.file for drift in _compare(root, files)]
    for path in _stale(root, files):
        (root / path).unlink()
        if not any((root / path).parent.iterdir()):
            (root / path).parent.rmdir()
    for path in set(changed) & set(files):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(files[path], encoding="utf-8")
    return changed


def drift(root: Path, package: str = "pipelines") -> list[Drift]:
    """Return the files below `root` that differ from what the package's modules render."""
    return list(_compare(root, render_all(package)))


def _modules(package: str) -> Iterator[ModuleType]:
    for name in sorted(m.name for m in pkgutil.iter_modules(importlib.import_module(package).__path__)):
        if not name.startswith("_"):
            yield importlib.import_module(f"{package}.{name}")


def _header(source: str) -> str:
    return f"{_MARK}{source} by `{COMMAND}`. Do not edit.\n"


def _kustomization(paths: list[str], package: str) -> str:
    lines = [f"- {Path(path).relative_to(WORKFLOWS)}\n" for path in paths]
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
    return _header(package) + head + (f"resources:\n{''.join(lines)}" if lines else "resources: []\n")


def _compare(root: Path, files: dict[str, str]) -> Iterator[Drift]:
    for path, text in files.items():
        if not (root / path).exists():
            yield Drift(path, "is not there")
        elif (committed := (root / path).read_text(encoding="utf-8")) != text:
            lines = zip_longest(committed.splitlines(), text.splitlines())
            line = next((n for n, (old, new) in enumerate(lines, 1) if old != new), 0)
            yield Drift(path, f"differs from what the code renders, first in line {line}")
    for path in _stale(root, files):
        yield Drift(path, "nothing renders this file any more")


def _stale(root: Path, files: dict[str, str]) -> list[str]:
    """Return the files that were rendered once; a hand-written kustomization.yaml beside them bears no mark and stays."""
    present = [p for p in (root / WORKFLOWS).rglob("*.yaml") if p.read_text(encoding="utf-8").startswith(_MARK)]
    return sorted({p.relative_to(root).as_posix() for p in present} - set(files))

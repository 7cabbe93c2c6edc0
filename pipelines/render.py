"""Write every resource as committed YAML, and tell where the committed files no longer match the code."""

import importlib
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import ModuleType

from hera.workflows import CronWorkflow, WorkflowTemplate

from lockstep.errors import BadInput, LockstepError, UseCaseError
from pipelines._checks.schedule import five_fields
from pipelines._checks.sources import file_of, modules_of, readable, step_packages
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
        line: the first that differs.
        hint: what to do about it.
    """

    file: str
    what: str
    line: int = 1
    hint: str = f"run `{COMMAND}` and commit what it wrote"


class NotRendered(BadInput):
    """A module of pipelines, or of their steps, does not render.

    Attributes:
        file: the Python to edit.
        line: in it.
        what: what is wrong.
    """

    def __init__(self, file: str, line: int, what: str, *, hint: str = "") -> None:
        super().__init__(f"{file}:{line}: {what}", hint=hint)
        self.file, self.line, self.what = file, line, what


def render_all(package: str = "pipelines") -> dict[str, str]:
    """Return the text of every rendered file by its path below the manifests' root.

    Args:
        package: its modules' `RESOURCES` are rendered, those of modules with a leading underscore are not.

    Raises:
        BadInput: there is no such package.
        NotRendered: a module raises, two resources want one file, a name is not `<project>-<pipeline>` of at most 52
            characters, a schedule is not cron.
    """
    files: dict[str, str] = {}
    if (init := file_of(package)) is None or init.name != "__init__.py":
        raise BadInput(f"there is no package {package!r}", hint="name one that can be imported: see PYTHONPATH")
    for name in modules_of(package):
        if not name.rpartition(".")[2].startswith("_"):
            _add_module(files, name, package)
    files[_KUSTOMIZATION] = _kustomization(sorted(files), package)
    return dict(sorted(files.items()))


def write(root: Path, package: str = "pipelines") -> list[str]:
    """Write the rendered files below `root` and delete those that nothing renders any more; return what changed.

    Files that do not say they were rendered are left alone.
    """
    files = render_all(package)
    changed = [drift.file for drift in compare(root, files)]
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
    return list(compare(root, render_all(package)))


def source_of(text: str) -> str:
    """Return the Python file that a rendered text says it comes from."""
    first = text.partition("\n")[0]
    if not first.startswith(_MARK):
        return ""
    module = first.removeprefix(_MARK).partition(" by ")[0].removesuffix(".py").replace("/", ".")
    path = file_of(module)
    return readable(path) if path else ""


def _add_module(files: dict[str, str], name: str, package: str) -> None:
    """Add what a module renders to the files."""
    try:
        module = importlib.import_module(name)
    except Exception as raised:
        raise _not_rendered(raised, package, file_of(name), 1) from raised
    builders: tuple[Callable[[], WorkflowTemplate | CronWorkflow], ...] = getattr(module, "RESOURCES", ())
    for build in builders:
        try:
            path, text = _rendered(module, build, files)
        except Exception as raised:
            line = getattr(getattr(build, "__code__", None), "co_firstlineno", 1)
            raise _not_rendered(raised, package, file_of(name), line) from raised
        files[path] = text


def _rendered(
    module: ModuleType, build: Callable[[], WorkflowTemplate | CronWorkflow], files: Mapping[str, str]
) -> tuple[str, str]:
    """Return the path and the text of one resource, which must not be among the files yet."""
    resource = build()
    path = f"{WORKFLOWS}/{pipeline_of(str(resource.name))}/{str(resource.kind).lower()}.yaml"
    if path in files:
        raise BadInput(f"there is already a {resource.kind} {resource.name!r}", hint="rename one")
    if isinstance(resource, CronWorkflow):
        for schedule in resource.schedules or []:
            five_fields(str(schedule))
    # A long expression stays on one line: yaml would fold it, and every edit would move its line breaks.
    return path, _header(f"{module.__name__.replace('.', '/')}.py") + resource.to_yaml(width=10_000)


def _not_rendered(raised: Exception, package: str, file: Path | None, line: int) -> LockstepError:
    """Return the error with the last line of the project's own that it passed; else that of the module or builder."""
    if isinstance(raised, UseCaseError):
        return raised
    # Modules with an underscore are where a mistake is told, not made.
    modules = [path for each in (package, *step_packages(package)) for path in modules_of(each).values()]
    own = {str(path) for path in modules if not path.stem.startswith("_")}
    passed = [frame for frame in traceback.extract_tb(raised.__traceback__) if frame.filename in own]
    if passed and passed[-1].filename != __file__:
        file, line = Path(passed[-1].filename), passed[-1].lineno or line
    if isinstance(raised, SyntaxError) and raised.filename in own:
        file, line = Path(raised.filename), raised.lineno or line
    what = str(raised.args[0]) if isinstance(raised, LockstepError) else f"{type(raised).__name__}: {raised}"
    return NotRendered(readable(file) if file else package, line, what, hint=getattr(raised, "hint", ""))


def _header(source: str) -> str:
    return f"{_MARK}{source} by `{COMMAND}`. Do not edit.\n"


def _kustomization(paths: list[str], package: str) -> str:
    lines = [f"- {Path(path).relative_to(WORKFLOWS)}\n" for path in paths]
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
    return _header(package) + head + (f"resources:\n{''.join(lines)}" if lines else "resources: []\n")


def compare(root: Path, files: dict[str, str]) -> Iterator[Drift]:
    """Yield the files below `root` that differ from the rendered ones."""
    for path, text in files.items():
        if not (root / path).exists():
            yield Drift(path, "is not there")
        elif (committed := (root / path).read_text(encoding="utf-8")) != text:
            lines = zip_longest(committed.splitlines(), text.splitlines())
            line = next((n for n, (old, new) in enumerate(lines, 1) if old != new), 1)
            yield Drift(path, f"differs from what the code renders, first in line {line}", line)
    for path in _stale(root, files):
        yield Drift(path, "nothing renders this file any more")


def _stale(root: Path, files: dict[str, str]) -> list[str]:
    """Return the files that were rendered once; a hand-written kustomization.yaml beside them bears no mark and stays."""
    present = [p for p in (root / WORKFLOWS).rglob("*.yaml") if p.read_text(encoding="utf-8").startswith(_MARK)]
    return sorted({p.relative_to(root).as_posix() for p in present} - set(files))

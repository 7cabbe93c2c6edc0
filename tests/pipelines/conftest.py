"""The laboratory: a use case, steps and pipelines of its own, importable by name."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from argo_stub import ArgoStub
from mill_repository import Mill

from pipelines.local import Run, Terms, run_workflow
from tests.pipelines.checking import laboratory_documents

FIXTURES = str(Path(__file__).parent / "fixtures")
sys.path.insert(0, FIXTURES)

Manifest = dict[str, Any]


@pytest.fixture(autouse=True)
def laboratory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCKSTEP_USE_CASE", "lab_case")
    monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOCKSTEP_MANIFESTS", str(tmp_path / "manifests"))


@pytest.fixture
def rendered() -> Callable[[str], Manifest]:
    """A fresh copy of a laboratory pipeline's WorkflowTemplate; what it does at exit is left out, if it is what all do."""

    def load(name: str) -> Manifest:
        manifest = laboratory_documents()[f"apps/base/workflows/{name}/workflowtemplate.yaml"]
        spec = manifest["spec"]
        if spec["onExit"] == "on-exit":
            spec.pop("onExit")
            spec["templates"] = [template for template in spec["templates"] if template["name"] != "on-exit"]
        return manifest

    return load


@pytest.fixture
def run(rendered: Callable[[str], Manifest], tmp_path: Path) -> Callable[..., Run]:
    """Run a pipeline in this process, its retries at once."""

    def start(
        pipeline: str | Manifest,
        *,
        how: dict[str, Any] | None = None,
        library: Mapping[str, Manifest] | None = None,
        approvals: dict[str, str] | None = None,
        **parameters: str,
    ) -> Run:
        manifest = rendered(pipeline) if isinstance(pipeline, str) else pipeline
        terms = Terms(retry_wait=0, approvals=approvals or {})
        logs = tmp_path / "runs" / "r1"
        return run_workflow(manifest, parameters, logs_dir=logs, library=library, terms=terms, **(how or {}))

    return start


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write modules into a package of their own, and return its name."""

    def write(name: str, **modules: str) -> str:
        folder = tmp_path / "packages" / name
        folder.mkdir(parents=True)
        for module, source in {"__init__": "", **modules}.items():
            (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder.parent))
        return name

    return write


@pytest.fixture
def mill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mill]:
    """The repository, committed on main, named by the settings and importable."""
    repository = Mill(tmp_path / "repository")
    source = Path(__file__).parents[1] / "use_cases" / "pump_care"
    shutil.copytree(source, repository.root / "mill", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (repository.root / "mill").rglob("*.py"):
        path.write_text(path.read_text().replace("pump_care", "mill").replace('"pumpcare"', '"mill"'))
    repository.git("init", "-q", "-b", "main")
    repository.commit()
    monkeypatch.setenv("LOCKSTEP_USE_CASE", "mill")
    monkeypatch.syspath_prepend(str(repository.root))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield repository
    for name in [name for name in sys.modules if name.partition(".")[0] == "mill"]:
        del sys.modules[name]


@pytest.fixture
def applied() -> dict[str, Manifest]:
    """The laboratory's WorkflowTemplates as they are in a cluster."""
    documents = [d for path, d in laboratory_documents().items() if path.endswith("workflowtemplate.yaml")]
    return {document["metadata"]["name"]: document for document in documents}


@pytest.fixture
def argo(applied: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch) -> Iterator[ArgoStub]:
    """A server that the settings name, and where the laboratory is applied."""
    with ArgoStub(templates=applied) as stub:
        stub.settle(monkeypatch)
        yield stub


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[str, str]]:
    """What was printed since the last call, which no token is in."""

    def read() -> tuple[str, str]:
        captured = capsys.readouterr()
        assert "hidden-token" not in captured.out + captured.err
        return captured.out, captured.err

    return read

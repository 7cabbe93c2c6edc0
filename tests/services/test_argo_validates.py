"""The committed workflows through Argo's own validation, as its server does it when one is applied, submitted or scheduled.

What it says and `lockstep check` does not is a gap in `pipelines/_checks`. The program is `argolint/`; the first build compiles
Argo and Kubernetes' client, two to three minutes of two cores, and every later one takes seconds from Go's cache.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SOURCE = Path(__file__).parent / "argolint"
WORKFLOWS = Path(__file__).parents[2] / "manifests/apps/base/workflows"
FILES = sorted(WORKFLOWS.glob("*/*workflow*.yaml"))
TOOLS = Path.home() / ".cache/lockstep/bin"


@pytest.fixture(scope="session")
def argolint() -> Path:
    """The program, built unless that was done: its name says of which source it is."""
    parts = [(SOURCE / name).read_bytes() for name in ("main.go", "go.mod", "go.sum")]
    built = TOOLS / f"argolint-{hashlib.sha256(b''.join(parts)).hexdigest()[:12]}"
    if built.exists():
        return built
    if not (go := shutil.which("go")):
        pytest.skip("go is not installed: argolint, which is Argo's validation, is built with it")
    fetched = subprocess.run([go, "mod", "download"], cwd=SOURCE, capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"go cannot fetch the modules of argolint: {fetched.stderr.strip()[-300:]}")
    TOOLS.mkdir(parents=True, exist_ok=True)
    making = built.with_suffix(".new")
    made = subprocess.run([go, "build", "-o", making, "."], cwd=SOURCE, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    making.replace(built)
    return built


def refused(argolint: Path, files: list[Path]) -> list[str]:
    ran = subprocess.run([argolint, *files], capture_output=True, text=True, check=False)
    lines = ran.stdout.splitlines()
    assert ran.returncode == bool(lines), ran.stderr
    return lines


def broken(folder: Path, name: str, change: Callable[[Any], object]) -> list[Path]:
    """Return the files, one of them with a change."""
    document = yaml.safe_load((WORKFLOWS / name).read_text())
    change(document)
    copy = folder / "broken.yaml"
    copy.write_text(yaml.safe_dump(document))
    return [*(file for file in FILES if file != WORKFLOWS / name), copy]


def test_argo_refuses_none_of_the_committed_workflows(argolint: Path):
    assert len(FILES) > 10
    assert refused(argolint, FILES) == []


def test_argo_refuses_a_default_outside_of_its_enum(argolint: Path, tmp_path: Path):
    def misspell(document: Any) -> None:
        [approval] = [p for p in document["spec"]["arguments"]["parameters"] if p["name"] == "approval"]
        approval["value"] = "maybe"

    told = refused(argolint, broken(tmp_path, "promote/workflowtemplate.yaml", misspell))
    why = "spec.arguments.approval.value should be present in spec.arguments.approval.enum list"
    assert [line for line in told if "fraud-promote" in line] == [
        f"WorkflowTemplate fraud-promote: {why}",
        f"Workflow of fraud-promote: {why}",
    ]


def test_a_tag_without_a_value_is_refused_when_a_run_is_submitted(argolint: Path, tmp_path: Path):
    def tell_all_arguments(document: Any) -> None:
        [on_exit] = [t for t in document["spec"]["templates"] if t["name"] == "on-exit"]
        on_exit["dag"]["tasks"][0]["arguments"]["parameters"][0]["value"] = "{{workflow.parameters}}"

    told = refused(argolint, broken(tmp_path, "drain-served-log/workflowtemplate.yaml", tell_all_arguments))
    why = "templates.on-exit.tasks.report failed to resolve {{workflow.parameters}}"
    assert [line for line in told if "fraud-drain-served-log" in line] == [
        f"Workflow of fraud-drain-served-log: {why}",
        f"CronWorkflow fraud-drain-served-log: cannot validate Workflow: {why}",
    ]


def test_a_schedule_is_validated_with_its_template(argolint: Path, tmp_path: Path):
    def misspell(document: Any) -> None:
        document["spec"]["schedules"] = ["never"]

    told = refused(argolint, broken(tmp_path, "train/cronworkflow.yaml", misspell))
    assert [line.partition(":")[0] for line in told if "fraud-train" in line] == ["CronWorkflow fraud-train"]

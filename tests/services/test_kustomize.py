"""The committed overlay through the real kustomize: one namespace, pinned images, and names that are followed when prefixed."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFESTS = Path(__file__).parents[2] / "manifests"
BUILT = Path.home() / ".cache/lockstep/bin/kustomize"
PINNED = "registry.example.com/fraud-steps@sha256:" + 64 * "0"


def commands() -> dict[str, list[str]]:
    """Return the ways of building a kustomization that this machine has, by name."""
    found = {}
    if binary := shutil.which("kustomize") or (str(BUILT) if BUILT.exists() else None):
        found["kustomize"] = [binary, "build"]
    if binary := shutil.which("kubectl"):
        found["kubectl"] = [binary, "kustomize"]
    return found


@pytest.fixture(params=["kustomize", "kubectl"])
def command(request: pytest.FixtureRequest) -> list[str]:
    found = commands()
    if request.param not in found:
        pytest.skip(
            f"{request.param} is not installed" + ("" if found else ", nor its substitute: make test-services")
        )
    return found[request.param]


def build(command: list[str], folder: Path) -> list[dict[str, Any]]:
    ran = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return list(yaml.safe_load_all(ran.stdout))


def values(key: str, value: Any) -> Iterator[Any]:
    """Yield what is below a key, wherever in a document."""
    if isinstance(value, dict):
        yield from (inner for name, inner in value.items() if name == key)
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from values(key, inner)


def test_every_image_is_pinned_and_every_resource_is_in_the_namespace(command: list[str]):
    documents = build(command, MANIFESTS / "apps/production")
    rendered = list((MANIFESTS / "apps/base/workflows").glob("*/*workflow*.yaml"))
    ours = [document for document in documents if document["apiVersion"] == "argoproj.io/v1alpha1"]
    assert len(ours) == len(rendered) > 0
    assert {document["metadata"]["namespace"] for document in documents} == {"features"}
    images = [image for document in documents for image in values("image", document)]
    assert len(images) > len(rendered)
    assert set(images) == {PINNED}


CALLER = """
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata:
  name: fraud-caller
spec:
  templates:
  - name: main
    dag:
      tasks:
      - name: own
        template: main
      - name: other
        templateRef: {name: fraud-train, template: main}
  - name: turns
    steps:
    - - name: other
        templateRef: {name: fraud-promote, template: main}
  - name: odd
    container: {image: fraud-steps}
    initContainers: [{name: i, image: fraud-steps}]
    sidecars: [{name: s, image: fraud-steps}]
---
apiVersion: argoproj.io/v1alpha1
kind: CronWorkflow
metadata:
  name: fraud-caller
spec:
  workflowSpec:
    workflowTemplateRef: {name: fraud-caller}
"""
OVERLAY = """
resources: [../base]
namePrefix: blue-
images:
- {name: fraud-steps, newTag: "7"}
"""


def test_a_prefix_is_followed_to_every_reference_and_a_tag_to_every_kind_of_container(
    command: list[str], tmp_path: Path
):
    shutil.copytree(MANIFESTS / "apps/base", tmp_path / "base")
    (tmp_path / "base/workflows/caller.yaml").write_text(CALLER)
    with (tmp_path / "base/workflows/kustomization.yaml").open("a") as listed:
        listed.write("- caller.yaml\n")
    (tmp_path / "blue").mkdir()
    (tmp_path / "blue/kustomization.yaml").write_text(OVERLAY)
    documents = build(command, tmp_path / "blue")
    assert all(document["metadata"]["name"].startswith("blue-") for document in documents)
    callers = [document for document in documents if document["metadata"]["name"] == "blue-fraud-caller"]
    assert sorted(reference["name"] for reference in values("templateRef", callers)) == [
        "blue-fraud-promote",
        "blue-fraud-train",
    ]
    assert list(values("workflowTemplateRef", callers)) == [{"name": "blue-fraud-caller"}]
    assert list(values("image", callers)) == 3 * ["fraud-steps:7"]

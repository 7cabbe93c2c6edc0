"""kustomize's field specs cover each place where a rendered file holds an image or the name of a WorkflowTemplate."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

BASE = Path(__file__).parents[2] / "manifests/apps/base"
SPECS = yaml.safe_load((BASE / "argo-fields.yaml").read_text())
DOCUMENTS = [yaml.safe_load(path.read_text()) for path in sorted(BASE.glob("workflows/*/*.yaml"))]


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every leaf as kustomize writes it: `spec/templates[]/script/image`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, f"{path}/{key}".lstrip("/"))
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, path if path.endswith("[]") else f"{path}[]")
    else:
        yield path


def found(*ends: str) -> set[tuple[str, str]]:
    return {
        (document["kind"], path)
        for document in DOCUMENTS
        if document["kind"] != "Kustomization"
        for path in paths(document)
        if path.endswith(ends)
    }


def test_every_image_has_a_field_spec():
    specs = {(spec["kind"], spec["path"]) for spec in SPECS["images"]}
    rendered = found("/image")
    assert rendered == {("WorkflowTemplate", "spec/templates[]/script/image")}
    assert rendered <= specs


def test_every_reference_to_a_template_has_a_field_spec():
    [reference] = SPECS["nameReference"]
    assert (reference["group"], reference["kind"]) == ("argoproj.io", "WorkflowTemplate")
    specs = {(spec["kind"], spec["path"]) for spec in reference["fieldSpecs"]}
    assert found("/templateRef/name", "/workflowTemplateRef/name") <= specs


def test_the_base_names_the_specs_so_that_no_overlay_has_to():
    assert yaml.safe_load((BASE / "kustomization.yaml").read_text())["configurations"] == ["argo-fields.yaml"]

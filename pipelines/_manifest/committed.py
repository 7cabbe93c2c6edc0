"""The WorkflowTemplates that are committed below the manifests' root, found by the name of their pipeline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lockstep.errors import BadInput, nearest
from pipelines._manifest.calls import bodies
from pipelines._project import WORKFLOWS

Library = Mapping[str, Mapping[str, Any]]
"""WorkflowTemplates by their name."""


def pipelines_in(root: Path) -> dict[str, Path]:
    """Return the document of each committed pipeline by the pipeline's name.

    Raises:
        BadInput: there is none.
    """
    folders = {path.parent.name: path for path in sorted((root / WORKFLOWS).glob("*/workflowtemplate.yaml"))}
    if not folders:
        raise BadInput(
            f"no rendered workflow below {root / WORKFLOWS}",
            hint="run `lockstep render`, or name the folder with LOCKSTEP_MANIFESTS",
        )
    return folders


def template_names(root: Path) -> dict[str, str]:
    """Return the pipeline of each committed WorkflowTemplate by the template's name.

    Raises:
        BadInput: there is none, or one is no WorkflowTemplate.
    """
    return {_read(path)["metadata"]["name"]: pipeline for pipeline, path in pipelines_in(root).items()}


def load_template(root: Path, name: str) -> dict[str, Any]:
    """Return the committed WorkflowTemplate of a pipeline.

    Args:
        root: the manifests' root.
        name: `train` or `<project>-train`.

    Raises:
        BadInput: there is none of that name, or it is no WorkflowTemplate.
    """
    folders = pipelines_in(root)
    named = folders.get(name)
    candidates = [named] if named else folders.values()
    for path in candidates:
        manifest = _read(path)
        if named or manifest["metadata"]["name"] == name:
            return manifest
    raise BadInput(f"there is no workflow {name!r}", hint=nearest(name, folders))


def load_library(root: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the committed WorkflowTemplates by name, for a document that refers to some; else none are read.

    Args:
        root: the manifests' root.
        manifest: the document.

    Raises:
        BadInput: one of them is no WorkflowTemplate.
    """
    templates = manifest["spec"].get("templates", [])
    if not any("templateRef" in call for template in templates for _, call in bodies(template)):
        return {}
    documents = [_read(path) for path in pipelines_in(root).values()]
    return {document["metadata"]["name"]: document for document in documents}


def _read(path: Path) -> dict[str, Any]:
    """Return a document that has at least what everything here asks for: a name and a spec.

    Raises:
        BadInput: it has not, or is no YAML.
    """
    try:
        # libyaml: the same loader in Python takes 60 ms a document.
        document: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise _broken(where, f"no YAML that can be read: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:  # a character that YAML does not allow; no UTF-8, or no such day
        raise _broken(str(path), f"no YAML that can be read: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise _broken(str(path), "no mapping")
    if not isinstance(document.get("spec"), dict):
        raise _broken(str(path), "no WorkflowTemplate: it has no `spec`")
    metadata = document.get("metadata")
    if not (isinstance(metadata, dict) and isinstance(metadata.get("name"), str) and metadata["name"]):
        raise _broken(str(path), "no WorkflowTemplate: it has no `metadata.name`")
    return document


def _broken(where: str, what: str) -> BadInput:
    return BadInput(f"{where} is {what}", hint="run `lockstep render`: committed workflows are not written by hand")

"""`lockstep run`: interpret a rendered WorkflowTemplate on this machine, without a cluster.

What runs is the committed YAML, not the Hera code, so a laptop and a cluster can only differ in what a cluster adds: pods,
retries, locks, limits. Those are accepted and not acted on; every other construct is refused before anything runs.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lockstep.errors import BadInput, nearest
from pipelines._interpreter import Interpreter, Node, Run
from pipelines._lint import lint
from pipelines._project import WORKFLOWS
from pipelines._subset import refusals


def load_template(root: Path, name: str) -> dict[str, Any]:
    """Return the committed WorkflowTemplate of a pipeline.

    Args:
        root: the manifests' root.
        name: `train` or `<project>-train`.

    Raises:
        BadInput: there is none of that name.
    """
    folders = {path.parent.name: path for path in sorted((root / WORKFLOWS).glob("*/workflowtemplate.yaml"))}
    if not folders:
        raise BadInput(
            f"no rendered workflow below {root / WORKFLOWS}",
            hint="run `lockstep render`, or name the folder with LOCKSTEP_MANIFESTS",
        )
    named = folders.get(name)
    candidates = [named] if named else folders.values()
    for path in candidates:
        # libyaml: the same loader in Python takes 60 ms a document.
        manifest = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        if named or manifest["metadata"]["name"] == name:
            return manifest
    raise BadInput(f"there is no workflow {name!r}", hint=nearest(name, folders))


def run_workflow(
    manifest: Mapping[str, Any],
    parameters: Mapping[str, str],
    *,
    logs_dir: Path,
    on_node: Callable[[Node], None] | None = None,
) -> Run:
    """Run a WorkflowTemplate in this process.

    Args:
        manifest: the rendered document.
        parameters: workflow parameters by name.
        logs_dir: takes one log a script; its name is the run's name.
        on_node: told of each node as it ends.

    Raises:
        BadInput: the manifest holds what is not interpreted here or references that do not hold; a parameter is unknown,
            missing, or not among the values its declaration allows.
    """
    _refuse(manifest)
    arguments = _arguments(manifest, parameters)
    logs_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lockstep-run-") as scratch:
        return Interpreter(manifest, arguments, Path(scratch), logs_dir, on_node).run()


def _refuse(manifest: Mapping[str, Any]) -> None:
    name = manifest.get("metadata", {}).get("name", "?")
    if manifest.get("kind") != "WorkflowTemplate":
        raise BadInput(f"{name!r} is a {manifest.get('kind')}", hint="run the WorkflowTemplate it refers to")
    for refusal in refusals(manifest):
        where = f"template {refusal.template!r}" if refusal.template else f"workflow {name!r}"
        raise BadInput(
            f"{where} uses {refusal.construct}, which `lockstep run` does not interpret",
            hint="the rendered subset of Argo is listed in pipelines/_subset.py",
        )
    for problem in lint(manifest):
        raise BadInput(f"workflow {name!r}, {problem.where}: {problem.what}", hint=problem.hint)


def _arguments(manifest: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """Return the value of every workflow parameter."""
    name = manifest["metadata"]["name"]
    declared = {p["name"]: p for p in manifest["spec"].get("arguments", {}).get("parameters", [])}
    for parameter in given:
        if parameter not in declared:
            raise BadInput(f"workflow {name!r} has no parameter {parameter!r}", hint=nearest(parameter, declared))
    values: dict[str, str] = {}
    for parameter, declaration in declared.items():
        value = given.get(parameter, declaration.get("value", declaration.get("default")))
        if value is None:
            description = declaration.get("description", "")
            hint = f"pass -p {parameter}=…" + (f" ({description})" if description else "")
            raise BadInput(f"workflow {name!r} needs a value for its parameter {parameter!r}", hint=hint)
        if declaration.get("enum") and value not in declaration["enum"]:
            raise BadInput(f"parameter {parameter!r} cannot be {value!r}", hint=nearest(value, declaration["enum"]))
        values[parameter] = value if isinstance(value, str) else json.dumps(value)
    return values


__all__ = ["Node", "Run", "load_template", "run_workflow"]

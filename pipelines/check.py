"""`lockstep check`: what is committed is what the code renders, and a cluster would accept and run it as it is meant.

The traps named here are Hera's and Argo's own: each renders or applies without an error and then does something else.
"""

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hera.workflows import models
from pydantic import ValidationError

from lockstep.errors import LockstepError, nearest
from pipelines._lint import Problem, lint
from pipelines._project import LONGEST_NAME, WORKFLOWS
from pipelines._subset import RUNNER, refusals
from pipelines.render import drift, render_all
from steps._step import steps_image


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        file: below the manifests' root, or the package that does not render.
        where: the template and task, or the field.
        what: what is wrong.
        hint: what to do.
    """

    file: str
    where: str
    what: str
    hint: str


def run_checks(root: Path, package: str = "pipelines") -> list[Finding]:
    """Return everything that is wrong with the pipelines of a package and their committed YAML below `root`."""
    try:
        files = render_all(package)
    except LockstepError as refused:
        return [Finding(package, "render", str(refused.args[0]), refused.hint)]
    drifts = [Finding(d.file, "committed file", d.what, d.hint) for d in drift(root, package)]
    return [*drifts, *check_files(files)]


def check_files(files: Mapping[str, str]) -> list[Finding]:
    """Return what is wrong with rendered documents, given by path."""
    documents = {p: yaml.safe_load(text) for p, text in files.items() if p != f"{WORKFLOWS}/kustomization.yaml"}
    templates = {d["metadata"]["name"]: d for d in documents.values() if d.get("kind") == "WorkflowTemplate"}
    findings: list[Finding] = []
    for path, document in documents.items():
        references = _schedule(document, templates) if document.get("kind") == "CronWorkflow" else _workflow(document)
        problems = (*_shape(document), *_name(document), *references)
        findings += [Finding(path, problem.where, problem.what, problem.hint) for problem in problems]
    return findings


def _shape(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Validate strictly: Hera's models drop unknown fields by default, so a misspelt one would vanish on the cluster."""
    kind = document.get("kind")
    if kind not in ("WorkflowTemplate", "CronWorkflow"):
        yield Problem("kind", f"{kind!r} is neither a WorkflowTemplate nor a CronWorkflow")
        return
    try:
        getattr(models, kind).model_validate(document, extra="forbid")
    except ValidationError as invalid:
        for error in invalid.errors():
            yield Problem(".".join(map(str, error["loc"])), error["msg"], "see the Argo field reference")


def _name(document: Mapping[str, Any]) -> Iterator[Problem]:
    name = document["metadata"].get("name", "")
    if len(name) > LONGEST_NAME:
        yield Problem("metadata.name", f"{name!r} has {len(name)} characters", f"Argo allows {LONGEST_NAME}")


def _workflow(document: Mapping[str, Any]) -> Iterator[Problem]:
    for refusal in refusals(document):
        yield Problem(
            refusal.template or "spec",
            f"uses {refusal.construct}, which is outside the rendered subset",
            "`lockstep run` could not run it: use a DAG of steps, or extend pipelines/_subset.py and pipelines/local.py",
        )
    yield from lint(document)
    for template in document["spec"].get("templates", []):
        if "script" in template:
            yield from _script(template["name"], template["script"])


def _script(name: str, script: Mapping[str, Any]) -> Iterator[Problem]:
    image = steps_image()
    if script.get("image") != image:
        yield Problem(
            name,
            f"image {script.get('image')!r} is not a logical image of this project",
            f"decorate the function with steps._step.step (it gives {image!r}): Hera's own default is python:3.10",
        )
    args = script.get("args", [])
    module, _, function = args[-1].partition(":") if args[:-1] == RUNNER else ("", "", "")
    if not function:
        return  # not Hera's runner: reported as outside the subset
    if name.replace("-", "_") != function:
        yield Problem(
            name,
            f"template {name!r} runs {module}:{function}",
            "a template is called like its function: Hera tells templates apart by name only and would mix them up",
        )
    package = module.rpartition(".")[0]
    owners = _steps_of(package).get(function, ())
    if module not in owners:
        yield Problem(name, f"{module} has no step {function!r}", nearest(function, _steps_of(package)))
    elif len(owners) > 1:
        yield Problem(
            name,
            f"two step functions are called {function!r}, in {' and '.join(owners)}",
            "rename one: in one workflow Hera silently runs the first for both",
        )


@cache
def _steps_of(package: str) -> Mapping[str, tuple[str, ...]]:
    """Return the modules that define each step function of a package, read without importing them."""
    found: dict[str, tuple[str, ...]] = {}
    spec = importlib.util.find_spec(package) if package else None
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for path in sorted(Path(folder).glob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and any(map(_is_step, node.decorator_list)):
                    found[node.name] = (*found.get(node.name, ()), f"{package}.{path.stem}")
    return found


def _is_step(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in ("step", "script")


def _schedule(document: Mapping[str, Any], templates: Mapping[str, Any]) -> Iterator[Problem]:
    """A CronWorkflow holds a schedule and arguments; all behaviour is the WorkflowTemplate's (Argo's Strict mode)."""
    spec = document["spec"]
    if not spec.get("timezone"):
        yield Problem("spec.timezone", "is not set", "Argo takes the controller's local time: write Etc/UTC")
    workflow = spec.get("workflowSpec", {})
    for key in sorted(set(workflow) - {"arguments", "workflowTemplateRef"}):
        yield Problem(
            f"spec.workflowSpec.{key}", "belongs on the WorkflowTemplate", "a schedule only passes arguments"
        )
    target = workflow.get("workflowTemplateRef", {}).get("name", "")
    if target not in templates:
        yield Problem(
            "spec.workflowSpec.workflowTemplateRef", f"{target!r} is not rendered", nearest(target, templates)
        )
        return
    given = {p["name"] for p in workflow.get("arguments", {}).get("parameters", [])}
    declared = {p["name"]: p for p in templates[target]["spec"].get("arguments", {}).get("parameters", [])}
    for name in sorted(given - set(declared)):
        yield Problem("spec.workflowSpec.arguments", f"{target} has no parameter {name!r}", nearest(name, declared))
    for name in [n for n, p in declared.items() if n not in given and "value" not in p]:
        yield Problem("spec.workflowSpec.arguments", f"parameter {name!r} of {target} is not given", "give it a value")


__all__ = ["Finding", "check_files", "run_checks"]

"""Change one document of the laboratory, or make a small package of one's own, and see what `lockstep check` finds."""

import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipelines.check import Finding, check_files, run_checks
from pipelines.render import render_all, write

Manifest = dict[str, Any]
WORKFLOWS = "apps/base/workflows"
NUMBERS = f"{WORKFLOWS}/numbers/workflowtemplate.yaml"
CRON = f"{WORKFLOWS}/numbers/cronworkflow.yaml"
GATED = f"{WORKFLOWS}/gated/workflowtemplate.yaml"

STEP = """
from hera.workflows.io import Input, Output
from steps._step import step

class RunInput(Input):
    n: int = 1

class RunOutput(Output):
    n: int
    passed: bool = True

@step()
def {name}(given: RunInput) -> RunOutput:
    return RunOutput(n={n})
"""
RAW = STEP.replace(
    "from steps._step import step", "from hera.workflows import RunnerScriptConstructor, script"
).replace("@step()", "@script(constructor=RunnerScriptConstructor(), image='lab-steps')")
PIPELINE = """
from hera.workflows import DAG, CronWorkflow, Task, WorkflowTemplate
from hera.workflows.models import WorkflowTemplateRef
from lab_pipelines._defaults import lab_template
{imports}

def build():
    with lab_template("trap") as template, DAG(name="main"):
{tasks}
    return template

RESOURCES = (build,)
"""


def laboratory_files() -> dict[str, str]:
    """Return what the laboratory renders, which is the same for all tests but those of rendering, which render it anew."""
    return dict(_rendered_under(os.environ["LOCKSTEP_USE_CASE"]))


def laboratory_documents() -> dict[str, Manifest]:
    """Return a copy of what the laboratory's files hold, to change as one likes."""
    return deepcopy(_read_under(os.environ["LOCKSTEP_USE_CASE"]))


@cache
def _rendered_under(_use_case: str) -> Mapping[str, str]:
    return render_all("lab_pipelines")


@cache
def _read_under(use_case: str) -> dict[str, Manifest]:
    return {path: yaml.safe_load(text) for path, text in _rendered_under(use_case).items()}


def findings_of(package: str, root: Path) -> list[Finding]:
    """Render a package below `root`, and check it."""
    write(root, package)
    return run_checks(root, package)


def template_of(document: Manifest, name: str) -> Manifest:
    return next(t for t in document["spec"]["templates"] if t["name"] == name)


def task_of(document: Manifest, template: str, name: str) -> Manifest:
    return next(t for t in template_of(document, template)["dag"]["tasks"] if t["name"] == name)


def findings_after(change: Callable[[Manifest], object], path: str = NUMBERS) -> list[Finding]:
    """Change one document of the laboratory, and return what is found."""
    files = laboratory_files()
    document = laboratory_documents()[path]
    change(document)
    files[path] = yaml.safe_dump(document, sort_keys=False)
    return check_files(files)


def check_after(change: Callable[[Manifest], object], path: str = NUMBERS) -> list[tuple[str, str]]:
    """Change one document of the laboratory, and return (where, what) of what is found."""
    return [(finding.where, finding.what) for finding in findings_after(change, path)]

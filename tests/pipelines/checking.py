"""Change one document of the laboratory, or make a small package of one's own, and see what `lockstep check` finds."""

from collections.abc import Callable
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
    files = render_all("lab_pipelines")
    document = yaml.safe_load(files[path])
    change(document)
    files[path] = yaml.safe_dump(document, sort_keys=False)
    return check_files(files)


def check_after(change: Callable[[Manifest], object], path: str = NUMBERS) -> list[tuple[str, str]]:
    """Change one document of the laboratory, and return (where, what) of what is found."""
    return [(finding.where, finding.what) for finding in findings_after(change, path)]

"""What the resources of one project are called, and where their YAML lives."""

import importlib
import os
import re
import sys
from pathlib import Path

from lockstep.errors import BadInput, UseCaseError
from lockstep.settings import Settings

LONGEST_NAME = 52
"""Argo refuses a longer CronWorkflow (it appends a time to the name); one limit for all, so a schedule can be added later."""

WORKFLOWS = Path("apps/base/workflows")
"""Where rendered workflows live below the manifests' root."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def project() -> str:
    """Return the project's name: `PROJECT` of the package that the setting `use_case` names.

    Raises:
        UseCaseError: it does not import, or has no `PROJECT`.
    """
    use_case = Settings.load().use_case
    folder = str(Path.cwd())
    if folder not in sys.path:  # the console script's own path does not hold the folder it is called in
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(use_case)
    except ImportError as failure:
        raise UseCaseError(
            f"the use case {use_case!r} does not import: {failure}",
            hint="LOCKSTEP_USE_CASE names a package in this folder or one that is installed",
        ) from failure
    name = getattr(module, "PROJECT", None)
    if not isinstance(name, str):
        raise UseCaseError(f"the use case {use_case!r} has no PROJECT", hint='write PROJECT = "…" in its __init__.py')
    return name


def resource_name(pipeline: str) -> str:
    """Return `<project>-<pipeline>`.

    Raises:
        BadInput: that is no Kubernetes name, or longer than 52 characters.
    """
    name = f"{project()}-{pipeline}"
    if len(name) > LONGEST_NAME:
        raise BadInput(
            f"{name!r} has {len(name)} characters", hint=f"Argo allows {LONGEST_NAME}: shorten {pipeline!r}"
        )
    if not _LABEL.fullmatch(name):
        raise BadInput(f"{name!r} is not a Kubernetes name", hint="lower-case letters, digits and hyphens")
    return name


def pipeline_of(name: str) -> str:
    """Return the pipeline that a resource's name ends in.

    Raises:
        BadInput: the name is not `<project>-<pipeline>`.
    """
    pipeline = name.removeprefix(f"{project()}-")
    if pipeline == name or resource_name(pipeline) != name:
        raise BadInput(f"resource {name!r} is not named <project>-<pipeline>", hint=f"the project is {project()!r}")
    return pipeline


def manifests_root() -> Path:
    """Return the manifests' root: `$LOCKSTEP_MANIFESTS`, or `manifests` in the current folder."""
    return Path(os.environ.get("LOCKSTEP_MANIFESTS", "manifests"))

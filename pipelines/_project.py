"""What the resources of one project are called, and where their YAML lives."""

import os
import re
from pathlib import Path

from lockstep.errors import BadInput
from lockstep.settings import Settings
from lockstep.views.use_case import project_of

LONGEST_NAME = 52
"""Argo refuses a longer CronWorkflow (it appends a time to the name); one limit for all, so a schedule can be added later."""

WORKFLOWS = Path("apps/base/workflows")
"""Where rendered workflows live below the manifests' root."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def project() -> str:
    """Return the name of the project that the setting `use_case` names.

    Raises:
        UseCaseError: the use case does not import, or names no project.
    """
    return project_of(Settings.load().use_case)


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

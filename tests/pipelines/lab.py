"""Manifests small enough to be written by hand, and how to read what became of them."""

from collections.abc import Mapping
from typing import Any

from pipelines._manifest.subset import OUTPUTS
from pipelines.local import Node, Run

Manifest = dict[str, Any]

MODES: Mapping[str, dict[str, Any]] = {
    "in this process": {},
    "in two workers": {"jobs": 2},
    "isolated": {"isolate": True},
}
"""The ways of running pods, as arguments of `run_workflow`."""


def phases(run: Run) -> dict[str, str]:
    """Of all nodes but attempts."""
    return {node.name: node.phase for node in run.nodes if node.kind != "attempt"}


def node(run: Run, name: str) -> Node:
    return next(n for n in run.nodes if n.name == name)


def template_of(manifest: Manifest, name: str) -> Manifest:
    return next(t for t in manifest["spec"]["templates"] if t["name"] == name)


def task_of(manifest: Manifest, template: str, name: str) -> Manifest:
    return next(t for t in template_of(manifest, template)["dag"]["tasks"] if t["name"] == name)


def workflow(*templates: Manifest, name: str = "lab-made", parameters: tuple[str, ...] = (), **spec: Any) -> Manifest:
    """The first template is the entrypoint."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": templates[0]["name"],
            "templates": list(templates),
            "arguments": {"parameters": [{"name": parameter} for parameter in parameters]},
            **spec,
        },
    }


def script(step: str, inputs: Mapping[str, str | None], outputs: tuple[str, ...] = (), **more: Any) -> Manifest:
    """A template that runs a laboratory step; None is an input without a default."""
    return {
        "name": step.replace("_", "-"),
        "inputs": {"parameters": [{"name": n} | ({} if d is None else {"default": d}) for n, d in inputs.items()]},
        "outputs": {"parameters": [{"name": n, "valueFrom": {"path": f"{OUTPUTS}{n}"}} for n in outputs]},
        "script": {
            "image": "lab-steps",
            "command": ["python"],
            "args": ["-m", "hera.workflows.runner", "-e", f"lab_steps.{step}:{step}"],
            "env": [{"name": "hera__outputs_directory", "value": OUTPUTS.removesuffix("/parameters/")}],
            "source": "{{inputs.parameters}}",
        },
        **more,
    }


def dag(*tasks: Manifest, name: str = "main", inputs: tuple[str, ...] = (), **more: Any) -> Manifest:
    return {
        "name": name,
        "inputs": {"parameters": [{"name": i} for i in inputs]},
        "dag": {"tasks": list(tasks)},
        **more,
    }


def steps(*groups: list[Manifest], name: str = "main", inputs: tuple[str, ...] = (), **more: Any) -> Manifest:
    return {"name": name, "inputs": {"parameters": [{"name": i} for i in inputs]}, "steps": list(groups), **more}


def call(name: str, template: str | Manifest, arguments: Mapping[str, str] | None = None, **more: Any) -> Manifest:
    """A task or a step; a mapping as its template is a `templateRef`."""
    called = {"templateRef": template} if isinstance(template, dict) else {"template": template}
    given = [{"name": n, "value": v} for n, v in (arguments or {}).items()]
    return {"name": name, **called, "arguments": {"parameters": given}, **more}


def hoisted(name: str, of: str, **more: str) -> dict[str, Any]:
    """The output `name` of a DAG or steps, taken from `tasks.x` or `steps.x`."""
    return {"name": name, "valueFrom": {"parameter": f"{{{{{of}.outputs.parameters.{name}}}}}", **more}}

"""The part of Argo that this project renders, so that a laptop can run it: an allow-list of keys for each object.

What is not listed is refused, also what a later Argo adds. `_INERT` keys say how a cluster runs a pod, not what it does.
Of these, `failFast` of a DAG is Argo's own: it marks a DAG as failed early only while the DAG has nothing left to start
and nothing that runs (dag.go, `assessDAGPhase`), so all branches come to their end either way, as they do here.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines._checks.problem import texts
from pipelines._manifest.calls import bodies
from pipelines._manifest.expressions import ExpressionError
from pipelines._run.retries import read_retries

TMP = "/tmp"  # noqa: S108 - a path in a pod
OUTPUTS = f"{TMP}/hera-outputs/parameters/"
RUNNER = ["-m", "hera.workflows.runner", "-e"]
SOURCE = "{{inputs.parameters}}"

KINDS = ("dag", "script", "steps", "suspend")
"""What a template can be."""

_PLACEMENT = {
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "executor", "metrics", "nodeSelector",
    "securityContext", "serviceAccountName", "tolerations", "volumes",
}  # fmt: skip
_INERT: Mapping[str, set[str]] = {
    # A mutex of a whole workflow keeps it from others: here a home folder has one run at a time.
    "spec": _PLACEMENT
    | {
        "archiveLogs", "imagePullSecrets", "podDisruptionBudget", "podGC", "podMetadata", "podPriorityClassName",
        "priority", "synchronization", "ttlStrategy", "workflowMetadata",
    },
    "template": _PLACEMENT | {"annotations", "metadata", "priorityClassName", "timeout"},
    "dag": {"failFast"},
    "retryStrategy": {"affinity"},
    "script": {"envFrom", "image", "imagePullPolicy", "name", "resources", "securityContext", "volumeMounts"},
    "environment variable": {"valueFrom"},
    "parameter": {"description"},
}  # fmt: skip
_INTERPRETED: Mapping[str, set[str]] = {
    "manifest": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {"arguments", "entrypoint", "onExit", "parallelism", "templates"},
    "template": {*KINDS, "inputs", "name", "outputs", "parallelism", "retryStrategy", "synchronization"},
    "dag": {"tasks"},
    "task": {"arguments", "depends", "name", "template", "templateRef", "when", "withParam"},
    "step": {"arguments", "name", "template", "templateRef", "when", "withParam"},
    "templateRef": {"name", "template"},
    "retryStrategy": {"backoff", "expression", "limit", "retryPolicy"},
    "backoff": {"cap", "duration", "factor"},
    "synchronization": {"mutexes"},
    "mutex": {"name"},
    "suspend": set(),
    "script": {"args", "command", "env", "source"},
    "environment variable": {"name", "value"},
    "parameters": {"parameters"},
    "parameter": {"default", "enum", "name", "value"},
    "output parameter": {"description", "name", "valueFrom"},
    "output of a dag": {"default", "parameter"},
    "output of a script": {"default", "path"},
    "output of a suspend": {"supplied"},
}


_OF_KIND = {"activeDeadlineSeconds": ("script",), "timeout": ("script",), "parallelism": ("dag", "steps")}
"""Keys that Argo refuses in a template of another kind."""


@dataclass(frozen=True)
class Refusal:
    """A construct that the laptop does not interpret: its name, and where it is."""

    template: str
    construct: str


def refusals(manifest: Mapping[str, Any]) -> Iterator[Refusal]:
    """Yield every construct of a WorkflowTemplate that is outside the rendered subset."""
    yield from _unknown("", "manifest", manifest)
    spec = manifest.get("spec", {})
    yield from _unknown("", "spec", spec)
    yield from _parameters("", spec.get("arguments", {}), "parameter")
    if not spec.get("parallelism", 1):
        yield Refusal("", "parallelism 0")
    for template in spec.get("templates", []):
        yield from _template(str(template.get("name", "?")), template)
    for _, text in texts({key: value for key, value in spec.items() if key != "templates"}):
        yield from _expression_tags("", text)


def _template(name: str, template: Mapping[str, Any]) -> Iterator[Refusal]:
    yield from _unknown(name, "template", template)
    kinds = sorted(set(KINDS) & set(template))
    yield from _kind(name, template, kinds)
    yield from _parameters(name, template.get("inputs", {}), "parameter")
    yield from _parameters(name, template.get("outputs", {}), "output parameter")
    kind = "dag" if "steps" in template else next(iter(kinds), "script")
    for output in template.get("outputs", {}).get("parameters", []):
        yield from _unknown(name, f"output of a {kind}", output.get("valueFrom", {}))
        path = output.get("valueFrom", {}).get("path", OUTPUTS)
        if not path.startswith(OUTPUTS):
            yield Refusal(name, f"output path {path}")
    yield from _unknown(name, "dag", template.get("dag", {}))
    yield from _unknown(name, "suspend", template.get("suspend", {}))
    if "suspend" in template and not template.get("outputs", {}).get("parameters"):
        yield Refusal(name, "suspend without an output that is supplied")
    for _, call in bodies(template):
        yield from _unknown(name, "task" if "dag" in template else "step", call)
        yield from _unknown(name, "templateRef", call.get("templateRef", {}))
        if "template" in call and "templateRef" in call:
            yield Refusal(name, f"a template and a templateRef in {call.get('name')!r}")
        yield from _parameters(name, call.get("arguments", {}), "parameter")
    if "script" in template:
        yield from _script(name, template["script"])
    yield from _retries(name, template)
    yield from _unknown(name, "synchronization", template.get("synchronization", {}))
    for mutex in template.get("synchronization", {}).get("mutexes", []):
        yield from _unknown(name, "mutex", mutex)
    for _, text in texts(template):
        yield from _expression_tags(name, text)


def _kind(name: str, template: Mapping[str, Any], kinds: list[str]) -> Iterator[Refusal]:
    if len(kinds) != 1:
        yield Refusal(name, f"a template that is not exactly one of {', '.join(KINDS[:-1])} and {KINDS[-1]}")
    for key in sorted(set(_OF_KIND) & set(template)):
        if not set(kinds) & set(_OF_KIND[key]):
            yield Refusal(name, f"{key} of a template that is no {' or '.join(_OF_KIND[key])}")


def _retries(name: str, template: Mapping[str, Any]) -> Iterator[Refusal]:
    strategy = template.get("retryStrategy")
    if strategy is None:
        return
    if "script" not in template:
        yield Refusal(name, "retryStrategy of a template that is no script")
    yield from _unknown(name, "retryStrategy", strategy)
    yield from _unknown(name, "backoff", strategy.get("backoff") or {})
    try:
        read_retries(strategy)
    except ExpressionError as unknown:
        yield Refusal(name, str(unknown))


def _script(name: str, script: Mapping[str, Any]) -> Iterator[Refusal]:
    # Hera's runner gets values as data: neither its command nor its source is put together from them.
    yield from _unknown(name, "script", script)
    for variable in script.get("env", []):
        yield from _unknown(name, "environment variable", variable)
    args = script.get("args", [])
    entrypoint = args[-1] if len(args) == len(RUNNER) + 1 else ""
    if script.get("command") != ["python"] or args[:-1] != RUNNER or not re.fullmatch(r"[\w.]+:\w+", entrypoint):
        inline = " ".join([*script.get("command", []), *args])
        yield Refusal(name, f"command {inline!r}, of which a value in {{{{…}}}} would become part")
    if script.get("source") != SOURCE:
        yield Refusal(name, "an inline script, of which a value in {{…}} would become part")


def _parameters(name: str, holder: Mapping[str, Any], kind: str) -> Iterator[Refusal]:
    yield from _unknown(name, "parameters", holder)
    for parameter in holder.get("parameters", []):
        yield from _unknown(name, kind, parameter)


def _unknown(template: str, kind: str, value: Mapping[str, Any]) -> Iterator[Refusal]:
    for key in sorted(set(value) - _INTERPRETED.get(kind, set()) - _INERT.get(kind, set())):
        yield Refusal(template, f"{key} (of {'a' if kind[0] not in 'aeiou' else 'an'} {kind})")


def _expression_tags(template: str, text: str) -> Iterator[Refusal]:
    if found := re.search(r"\{\{\s*=.*", text):
        yield Refusal(template, f"the expression tag {found[0]}")

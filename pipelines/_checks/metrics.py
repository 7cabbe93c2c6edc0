"""Metrics that Argo's controller would not take: it says so in a condition of the run, and the series is missing.

https://argo-workflows.readthedocs.io/en/latest/metrics/
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines._checks.problem import Place, Problem, located, texts
from pipelines._manifest.calls import when_problems
from pipelines._manifest.expressions import tags

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_KINDS = ("counter", "gauge", "histogram")
_LIVE = ("workflow.duration", "duration")
"""What Argo can tell at any time."""


def metric_problems(manifest: Mapping[str, Any], library: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Yield what is wrong with the metrics of a WorkflowTemplate.

    Args:
        manifest: the document.
        library: all WorkflowTemplates by name: a metric is one for all, with one help and one kind.
    """
    yield from located(manifest, _problems(manifest, {**library, manifest["metadata"]["name"]: manifest}))


def _problems(manifest: Mapping[str, Any], library: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    first: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for document in sorted(library):
        for _, metric in _metrics(library[document]):
            first.setdefault(str(metric.get("name")), (document, metric))
    for path, metric in _metrics(manifest):
        yield from _metric(metric, path)
        document, other = first[str(metric.get("name"))]
        if metric.get("help") != other.get("help") or _kinds(metric) != _kinds(other):
            what = f"the metric {metric.get('name')!r} has another help or kind in {document}: Argo keeps the first it meets"
            yield Problem(path, what, "say the same, or rename one")


def _metrics(manifest: Mapping[str, Any]) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    spec = manifest["spec"]
    templates = [(("spec", "templates", index), each) for index, each in enumerate(spec.get("templates", []))]
    for at, holder in ((("spec",), spec), *templates):
        for index, metric in enumerate(holder.get("metrics", {}).get("prometheus", [])):
            yield (*at, "metrics", "prometheus", index), metric


def _metric(metric: Mapping[str, Any], path: Place) -> Iterator[Problem]:
    names = [metric.get("name"), *(label.get("key") for label in metric.get("labels", []))]
    for name in [str(name) for name in names if not _NAME.fullmatch(str(name))]:
        hint = "letters, digits and underscores, no digit first"
        yield Problem(path, f"{name!r} is no name of a metric or label", hint)
    if not metric.get("help"):
        yield Problem(path, "the metric has no help, and Argo refuses it", "say in a sentence what it counts")
    if len(kinds := _kinds(metric)) != 1 or not metric[kinds[0]].get("value"):
        yield Problem(path, "the metric is not one of counter, gauge and histogram, with a value", "give it one")
    yield from when_problems(metric, path)
    if metric.get("gauge", {}).get("realtime"):
        yield from _realtime(metric, path)


def _realtime(metric: Mapping[str, Any], path: Place) -> Iterator[Problem]:
    value = str(metric["gauge"].get("value"))
    if tags(value) not in [[name] for name in _LIVE] or not (value.startswith("{{") and value.endswith("}}")):
        what = f"a gauge with realtime: true cannot be {value}: it is read before that has a value"
        yield Problem((*path, "gauge", "value"), what, f"write {{{{{_LIVE[0]}}}}}, or realtime: false")
        return
    for place, text in texts(metric, path):
        for tag in tags(text):
            if tag.startswith("outputs.") or tag == "exitCode":
                what = f"{{{{{tag}}}}} has no value while the step runs, and a gauge with realtime: true is set then"
                yield Problem(place, what, "write realtime: false")


def _kinds(metric: Mapping[str, Any]) -> list[str]:
    return [kind for kind in _KINDS if kind in metric]

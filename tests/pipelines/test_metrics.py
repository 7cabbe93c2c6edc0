"""What Argo's controller would not count is found before it is applied."""

from typing import Any

import pytest
import yaml

from pipelines.check import check_files
from tests.pipelines.checking import GATED, NUMBERS, Manifest, check_after, laboratory_files, template_of

RUNS = {"name": "lab_runs", "help": "Runs that ended.", "counter": {"value": "1"}}
GAUGE = {"name": "lab_rows", "help": "Rows.", "gauge": {"realtime": True, "value": "{{duration}}"}}
AT = "spec.metrics.prometheus.lab_runs"


def without(metric: Manifest, key: str) -> Manifest:
    return {name: value for name, value in metric.items() if name != key}


def of_the_workflow(*metrics: Manifest) -> Any:
    return lambda document: document["spec"].update(metrics={"prometheus": list(metrics)})


def of_a_step(*metrics: Manifest) -> Any:
    return lambda document: template_of(document, "double").update(metrics={"prometheus": list(metrics)})


@pytest.mark.parametrize("change", [of_the_workflow(RUNS, RUNS), of_a_step(RUNS, GAUGE)])
def test_metrics_that_argo_takes_are_no_finding(change: Any):
    assert check_after(change) == []


@pytest.mark.parametrize(
    ("metric", "what"),
    [
        ({**RUNS, "help": ""}, "the metric has no help, and Argo refuses it"),
        ({**RUNS, "name": "lab-runs"}, "'lab-runs' is no name of a metric or label"),
        ({**RUNS, "name": "lab:runs"}, "'lab:runs' is no name of a metric or label"),
        (
            {**RUNS, "labels": [{"key": "a.b", "value": "x"}]},
            "'a.b' is no name of a metric or label",
        ),
        (without(RUNS, "counter"), "the metric is not one of counter, gauge and histogram, with a value"),
        ({**RUNS, "counter": {"value": ""}}, "the metric is not one of counter, gauge and histogram, with a value"),
        ({**RUNS, "when": "{{workflow.status}} == a-b"}, "when: put quotes around a-b, of which Argo would make"),
    ],
)
def test_a_metric_that_argo_refuses_is_found(metric: Manifest, what: str):
    [(where, found)] = check_after(of_the_workflow(metric))
    assert where.startswith("spec.metrics.prometheus.lab")
    assert found.startswith(what)


@pytest.mark.parametrize(
    ("metric", "what"),
    [
        (
            {**GAUGE, "gauge": {"realtime": True, "value": "{{outputs.parameters.doubled}}"}},
            "a gauge with realtime: true cannot be {{outputs.parameters.doubled}}: it is read before that has a value",
        ),
        (
            {**GAUGE, "labels": [{"key": "n", "value": "{{outputs.parameters.doubled}}"}]},
            "{{outputs.parameters.doubled}} has no value while the step runs, and a gauge with realtime: true is set then",
        ),
        (
            {**GAUGE, "gauge": {"realtime": True, "value": "1"}},
            "a gauge with realtime: true cannot be 1: it is read before that has a value",
        ),
    ],
)
def test_a_gauge_that_is_live_reads_nothing_that_comes_later(metric: Manifest, what: str):
    assert what in [found for _, found in check_after(of_a_step(metric))]


@pytest.mark.parametrize(
    "other", [{**RUNS, "help": "Other runs."}, {**without(RUNS, "counter"), "gauge": RUNS["counter"]}]
)
def test_a_metric_has_one_help_and_one_kind_in_all_documents(other: Manifest):
    files = laboratory_files()
    for path, metric in ((GATED, RUNS), (NUMBERS, other)):
        document = yaml.safe_load(files[path])
        of_the_workflow(metric)(document)
        files[path] = yaml.safe_dump(document, sort_keys=False)
    [finding] = [f for f in check_files(files) if "another help" in f.what]
    assert (finding.file, finding.where) == (NUMBERS, AT)
    assert finding.what == (
        "the metric 'lab_runs' has another help or kind in lab-gated: Argo keeps the first it meets"
    )

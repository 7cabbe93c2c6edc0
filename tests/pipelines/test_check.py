"""Each way in which rendered YAML can be wrong is found, and said in a sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.check import Finding, check_files, run_checks
from pipelines.render import render_all, write

Manifest = dict[str, Any]
NUMBERS = "apps/base/workflows/numbers/workflowtemplate.yaml"
CRON = "apps/base/workflows/numbers/cronworkflow.yaml"

STEP = """
from hera.workflows.io import Input, Output
from steps._step import step

class RunInput(Input):
    n: int = 1

class RunOutput(Output):
    n: int

@step()
def {name}(given: RunInput) -> RunOutput:
    return RunOutput(n={n})
"""
PIPELINE = """
from hera.workflows import DAG, Task, WorkflowTemplate
{imports}

def build():
    with WorkflowTemplate(name="lab-trap", entrypoint="main") as template, DAG(name="main"):
{tasks}
    return template

RESOURCES = (build,)
"""


def findings_of(package: str, root: Path) -> list[Finding]:
    write(root, package)
    return run_checks(root, package)


def task(document: Manifest, template: str, name: str) -> Manifest:
    return next(t for t in template_of(document, template)["dag"]["tasks"] if t["name"] == name)


def template_of(document: Manifest, name: str) -> Manifest:
    return next(t for t in document["spec"]["templates"] if t["name"] == name)


def check_after(change: Callable[[Manifest], object], path: str = NUMBERS) -> list[tuple[str, str]]:
    """Change one laboratory document, and return (where, what) of what is found."""
    files = render_all("lab_pipelines")
    document = yaml.safe_load(files[path])
    change(document)
    files[path] = yaml.safe_dump(document)
    return [(finding.where, finding.what) for finding in check_files(files)]


def test_the_laboratory_has_nothing_wrong(tmp_path: Path):
    assert findings_of("lab_pipelines", tmp_path) == []


def test_drift_is_a_finding(tmp_path: Path):
    write(tmp_path, "lab_pipelines")
    (tmp_path / CRON).write_text("edited by hand\n")
    assert run_checks(tmp_path, "lab_pipelines") == [
        Finding(
            file=CRON,
            where="committed file",
            what="differs from what the code renders, first in line 1",
            hint="run `lockstep render` and commit what it wrote",
        )
    ]


# -- Hera's traps, made on purpose -------------------------------------------------------------------------------------


def test_trap_string_annotations_are_named(tmp_path: Path, package):
    package("p1_steps", work="from __future__ import annotations\n" + STEP.format(name="work", n=1))
    code = PIPELINE.format(imports="from p1_steps.work import work", tasks='        work(name="a")')
    [finding] = run_checks(tmp_path, package("p1_pipelines", trap=code))
    assert finding.what == "the annotations of step 'work' in p1_steps.work are strings"
    assert "remove `from __future__ import annotations`" in finding.hint


def test_trap_two_steps_of_one_name_would_run_the_first_for_both(tmp_path: Path, package):
    package("p4_steps", one=STEP.format(name="run", n=1), two=STEP.format(name="run", n=2))
    code = PIPELINE.format(
        imports="from p4_steps import one, two", tasks='        one.run(name="a")\n        two.run(name="b")'
    )
    [finding] = findings_of(package("p4_pipelines", trap=code), tmp_path)
    assert finding.where == "run"
    assert finding.what == "two step functions are called 'run', in p4_steps.one and p4_steps.two"
    assert finding.hint == "rename one: in one workflow Hera silently runs the first for both"


def test_trap_a_template_that_is_not_called_like_its_function():
    def rename(document: Manifest) -> None:
        template_of(document, "double")["script"]["args"][-1] = "lab_steps.echo:echo"

    assert check_after(rename) == [("double", "template 'double' runs lab_steps.echo:echo")]


def test_trap_a_positional_input_is_refused_where_the_step_is_ours(tmp_path: Path, package):
    package("p5_steps", work=STEP.format(name="work", n=1))
    code = PIPELINE.format(imports="from p5_steps.work import RunInput, work", tasks="        work(RunInput(n=5))")
    [finding] = run_checks(tmp_path, package("p5_pipelines", trap=code))
    assert finding.what == "step 'work' is called with a positional argument inside a workflow"
    assert finding.hint == "Hera drops it and renders a task without arguments: call it with arguments={...}"


def test_trap_a_task_that_lost_its_arguments_is_found():
    files = render_all("lab_pipelines")
    document = yaml.safe_load(files[NUMBERS])
    del task(document, "each", "double")["arguments"]
    findings = check_files({**files, NUMBERS: yaml.safe_dump(document)})
    assert [(f.where, f.what, f.hint) for f in findings] == [
        (
            "each/double",
            "input 'n' of 'double' is not given",
            "pass arguments={…}: Hera drops an Input that is passed positionally, without an error",
        )
    ]


def test_trap_a_bare_name_in_depends_is_satisfied_by_a_skipped_task(tmp_path: Path, package):
    package("p7_steps", work=STEP.format(name="work", n=1))
    tasks = '        work(name="gate", when="1 == 2") >> work(name="roll-out")'
    code = PIPELINE.format(imports="from p7_steps.work import work", tasks=tasks)
    [finding] = findings_of(package("p7_pipelines", trap=code), tmp_path)
    assert finding.where == "main/roll-out"
    assert finding.what == "depends on the bare name 'gate', which is satisfied by a skipped task too"
    assert finding.hint.startswith("write gate.Succeeded")


# -- references --------------------------------------------------------------------------------------------------------


def argument(document: Manifest, name: str) -> Manifest:
    return next(p for p in task(document, "main", "each")["arguments"]["parameters"] if p["name"] == name)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param(
            lambda d: d["spec"].update(entrypoint="mian"),
            ("spec", "entrypoint 'mian' is no template"),
            id="entrypoint",
        ),
        pytest.param(
            lambda d: task(d, "each", "double").update(template="dubble"),
            ("each/double", "calls 'dubble', which is no template"),
            id="template",
        ),
        pytest.param(
            lambda d: argument(d, "label").update(name="lable"),
            ("main/each", "'each' has no input 'lable'"),
            id="argument",
        ),
        pytest.param(
            lambda d: argument(d, "label").update(value="{{inputs.parameters.nothing}}"),
            ("main/each", "{{inputs.parameters.nothing}} resolves to nothing"),
            id="input",
        ),
        pytest.param(
            lambda d: argument(d, "label").update(value="{{workflow.parameters.cuont}}"),
            ("main/each", "{{workflow.parameters.cuont}} resolves to nothing"),
            id="workflow parameter",
        ),
        pytest.param(
            lambda d: argument(d, "label").update(value="{{workflow.creationTimestamp}}"),
            ("main/each", "{{workflow.creationTimestamp}} resolves to nothing"),
            id="time of creation",
        ),
        pytest.param(
            lambda d: argument(d, "label").update(value="{{tasks.list.outputs.parameters.pears}}"),
            ("main/each", "{{tasks.list.outputs.parameters.pears}}: 'list-numbers' has no such output"),
            id="output",
        ),
        pytest.param(
            lambda d: argument(d, "label").update(value="{{tasks.sum.outputs.parameters.total}}"),
            ("main/each", "reads {{tasks.sum.outputs.parameters.total}} and does not wait for 'sum'"),
            id="output of a later task",
        ),
        pytest.param(
            lambda d: argument(d, "label").update(value="{{tasks.lits.status}}"),
            ("main/each", "{{tasks.lits.status}}: 'lits' is no task"),
            id="task",
        ),
        pytest.param(
            lambda d: task(d, "main", "each").update(withParam="{{item}}"),
            ("main/each", "{{item}} resolves to nothing"),
            id="item outside",
        ),
        pytest.param(
            lambda d: task(d, "main", "each").update(depends="list.Succeeded && nobody.Succeeded"),
            ("main/each", "depends on 'nobody', which is no task"),
            id="depends",
        ),
        pytest.param(
            lambda d: task(d, "main", "each").update(depends="list.Succeded"),
            ("main/each", "'Succeded' is no task result"),
            id="result",
        ),
        pytest.param(
            lambda d: template_of(d, "main")["outputs"]["parameters"][0]["valueFrom"].update(
                parameter="{{tasks.sum.outputs.parameters.sum}}"
            ),
            ("main/outputs/total", "{{tasks.sum.outputs.parameters.sum}}: 'sum-up' has no such output"),
            id="hoisted output",
        ),
        pytest.param(
            lambda d: d["spec"]["arguments"]["parameters"].pop(0),
            ("main", "input 'count' of the entrypoint template is given by nobody"),
            id="entrypoint input",
        ),
        pytest.param(
            lambda d: template_of(d, "double")["script"].update(image="python:3.10"),
            ("double", "image 'python:3.10' is not a logical image of this project"),
            id="image",
        ),
        pytest.param(
            lambda d: template_of(d, "double")["script"]["args"].__setitem__(-1, "lab_steps.echo:double"),
            ("double", "lab_steps.echo has no step 'double'"),
            id="function",
        ),
        pytest.param(
            lambda d: d["spec"].update(pogGC={}),
            ("spec.pogGC", "Extra inputs are not permitted"),
            id="misspelt field",
        ),
        pytest.param(
            lambda d: d["metadata"].update(name="lab-" + "n" * 49),
            ("metadata.name", f"'lab-{'n' * 49}' has 53 characters"),
            id="name",
        ),
    ],
)
def test_a_reference_that_does_not_hold_is_found(change, found):
    assert found in check_after(change)


def test_a_circle_in_depends_is_found():
    found = check_after(lambda d: task(d, "main", "list").update(depends="sum.Succeeded"))
    assert ("main/list", "task 'list' waits for itself") in found


def test_an_inline_shell_is_found():
    def inline(document: Manifest) -> None:
        template_of(document, "double")["script"].update(command=["sh"], source="rm -rf {{inputs.parameters.n}}")

    whats = [what for where, what in check_after(inline) if where == "double"]
    assert whats == [
        "uses command 'sh -m hera.workflows.runner -e lab_steps.double:double', which is outside the rendered subset",
        "uses an inline script, which is outside the rendered subset",
    ]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda s: s.pop("timezone"), ("spec.timezone", "is not set")),
        (
            lambda s: s["workflowSpec"].update(parallelism=2),
            ("spec.workflowSpec.parallelism", "belongs on the WorkflowTemplate"),
        ),
        (
            lambda s: s["workflowSpec"]["workflowTemplateRef"].update(name="lab-number"),
            ("spec.workflowSpec.workflowTemplateRef", "'lab-number' is not rendered"),
        ),
        (
            lambda s: s["workflowSpec"]["arguments"]["parameters"][0].update(name="cuont"),
            ("spec.workflowSpec.arguments", "lab-numbers has no parameter 'cuont'"),
        ),
        (
            lambda s: s["workflowSpec"].pop("arguments"),
            ("spec.workflowSpec.arguments", "parameter 'count' of lab-numbers is not given"),
        ),
    ],
)
def test_a_schedule_that_does_not_fit_its_template_is_found(change, found):
    assert found in check_after(lambda document: change(document["spec"]), CRON)

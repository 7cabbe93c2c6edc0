"""Hera's traps, each made on purpose: all of them render, or fail with a riddle; `lockstep check` names each, and its line.

Hera 7.1.0 behaves as the first lines of the tests say; where it stops doing so, a trap can go.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lockstep.errors import BadInput
from pipelines.check import Finding, check_files, run_checks
from pipelines.cli import main
from pipelines.render import render_all
from tests.pipelines.checking import (
    CRON,
    NUMBERS,
    PIPELINE,
    RAW,
    STEP,
    findings_after,
    findings_of,
    task_of,
    template_of,
)

Package = Callable[..., str]


def line_of(file: str, text: str) -> int:
    """Return the first line of a file that holds a text."""
    return next(number for number, line in enumerate(Path(file).read_text().splitlines(), 1) if text in line)


def assert_at(finding: Finding, file: str, text: str) -> None:
    """The finding is in a file whose path ends so, at the first line that holds the text."""
    assert finding.file.endswith(file)
    assert finding.line == line_of(finding.file, text)


def pipeline(package: Package, name: str, imports: str, tasks: str) -> str:
    indented = "\n".join(f"        {line}" for line in tasks.splitlines())
    return package(name, trap=PIPELINE.format(imports=imports, tasks=indented))


# -- P1: string annotations --------------------------------------------------------------------------------------------


def test_p1_string_annotations_of_a_step(tmp_path: Path, package: Package):
    package("p1_steps", work="from __future__ import annotations\n" + STEP.format(name="work", n=1))
    name = pipeline(package, "p1_pipelines", "from p1_steps.work import work", 'work(name="a")')
    source, render = run_checks(tmp_path, name)
    assert source.what == "a step's annotations are strings here, and Hera reads them as types"
    assert source.hint == "remove `from __future__ import annotations` from this module"
    assert_at(source, "p1_steps/work.py", "from __future__")
    assert render.what == "the annotations of step 'work' in p1_steps.work are strings"
    assert_at(render, "p1_steps/work.py", "@step")


def test_p1_string_annotations_of_a_bare_script_are_a_riddle_without_check(tmp_path: Path, package: Package):
    package("p1_raw_steps", work="from __future__ import annotations\n" + RAW.format(name="work", n=1))
    name = pipeline(package, "p1_raw_pipelines", "from p1_raw_steps.work import work", 'work(name="a")')
    source, render = run_checks(tmp_path, name)
    assert source.what == "a step's annotations are strings here, and Hera reads them as types"
    assert render.what == "TypeError: issubclass() arg 1 must be a class"


# -- P2 and P8: hooks --------------------------------------------------------------------------------------------------

HOOK = """from __future__ import annotations

from hera.shared import register_pre_build_hook
from hera.workflows import {kind}


@register_pre_build_hook
def label(built: {kind}) -> {kind}:
    return built
"""


@pytest.mark.parametrize("kind", ["Script", "CronWorkflow"])
def test_p2_p8_a_pre_build_hook_never_runs_or_runs_twice(tmp_path: Path, package: Package, kind: str):
    package("p2_steps", work=STEP.format(name="work", n=1))
    code = PIPELINE.format(imports="from p2_steps.work import work", tasks='        work(name="a")')
    name = package(f"p2_{kind}", trap=code, _hooks=HOOK.format(kind=kind))
    [finding] = findings_of(name, tmp_path)
    what = (
        "'label' is a pre-build hook: with string annotations Hera never runs it, on a CronWorkflow it runs it twice"
    )
    assert finding.what == what
    assert_at(finding, f"p2_{kind}/_hooks.py", "def label")


# -- P3: settings after the import of the steps ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "statement", "what"),
    [
        ("p3_image", "global_config.image = 'lab-steps'", "global_config.image = …"),
        ("p3_class", "global_config.set_class_defaults(Script, image='lab-steps')", "set_class_defaults(…)"),
    ],
)
def test_p3_a_default_that_is_set_after_the_import_of_the_steps(
    tmp_path: Path, package: Package, name: str, statement: str, what: str
):
    package("p3_steps", work=RAW.replace(", image='lab-steps'", "").format(name="work", n=1))
    hera = "from hera.shared import global_config\nfrom hera.workflows import Script"
    imports = f"{hera}\nfrom p3_steps.work import work\n{statement}"
    try:
        findings = findings_of(pipeline(package, name, imports, 'work(name="a")'), tmp_path)
    finally:
        from hera.shared import global_config

        global_config.reset()
    assert findings[0].what.startswith(f"{what} is silently ignored for every step that was imported before it")
    assert_at(findings[0], f"{name}/trap.py", statement)
    image = next(finding for finding in findings if finding.what.startswith("image "))
    assert image.what.endswith("is not a logical image of this project")
    assert_at(image, "trap/workflowtemplate.yaml", "image: python")


# -- P4: two steps of one name -----------------------------------------------------------------------------------------


def test_p4_two_steps_of_one_name_would_run_the_first_for_both(tmp_path: Path, package: Package):
    package("p4_steps", one=STEP.format(name="run", n=1), two=STEP.format(name="run", n=2))
    tasks = 'one.run(name="a")\ntwo.run(name="b")'
    name = pipeline(package, "p4_pipelines", "from p4_steps import one, two", tasks)
    [finding] = findings_of(name, tmp_path)
    assert finding.where == "run"
    assert finding.what == "two step functions are called 'run', in p4_steps.one and p4_steps.two"
    assert finding.hint == "rename one: in one workflow Hera silently runs the first for both"
    assert_at(finding, "trap/workflowtemplate.yaml", "p4_steps.one:run")
    one, two = finding.source.split(" and ")
    assert one.endswith(f"p4_steps/one.py:{line_of(one.partition(':')[0], 'def run')}")
    assert "p4_steps/two.py:" in two


def test_p4_a_template_that_is_not_called_like_its_function():
    def rename(document: dict) -> None:
        template_of(document, "double")["script"]["args"][-1] = "lab_steps.echo:echo"

    [finding] = findings_after(rename)
    assert (finding.where, finding.what) == ("double", "template 'double' runs lab_steps.echo:echo")
    assert finding.source.startswith("tests/pipelines/fixtures/lab_steps/echo.py:")


# -- P5: a positional Input --------------------------------------------------------------------------------------------


def test_p5_a_positional_input_to_a_step_of_ours(tmp_path: Path, package: Package):
    package("p5_steps", work=STEP.format(name="work", n=1))
    name = pipeline(package, "p5_pipelines", "from p5_steps.work import RunInput, work", "work(RunInput(n=5))")
    findings = run_checks(tmp_path, name)
    assert [finding.where for finding in findings] == ["source", "render"]
    for finding in findings:
        assert finding.what == "step 'work' is called with a positional argument inside a workflow"
        assert finding.hint == "Hera drops it and renders a task without arguments: call it with arguments={...}"
        assert_at(finding, "p5_pipelines/trap.py", "work(RunInput")


def test_p5_a_positional_input_to_a_bare_script_is_dropped(tmp_path: Path, package: Package):
    package("p5_raw_steps", work=RAW.format(name="work", n=1))
    name = pipeline(package, "p5_raw_pipelines", "from p5_raw_steps import work", "work.work(work.RunInput(n=5))")
    rendered = yaml.safe_load(render_all(name)["apps/base/workflows/trap/workflowtemplate.yaml"])
    assert "arguments" not in task_of(rendered, "main", "work")
    finding = findings_of(name, tmp_path)[0]
    assert finding.what == "step 'work' is called with a positional argument inside a workflow"
    assert_at(finding, "p5_raw_pipelines/trap.py", "work.work(")


def test_p5_a_task_that_lost_its_arguments():
    [finding] = findings_after(lambda d: task_of(d, "each", "double").pop("arguments"))
    assert (finding.where, finding.what) == ("each/double", "input 'n' of 'double' is not given")
    assert finding.hint == "pass arguments={…}: Hera drops an Input that is passed positionally, without an error"


# -- P6: on_success ----------------------------------------------------------------------------------------------------


def test_p6_on_success_is_the_opposite_of_what_it_says(tmp_path: Path, package: Package):
    package("p6_steps", work=STEP.format(name="work", n=1))
    tasks = 'a = work(name="a")\nb = work(name="b")\na.on_success(b)'
    name = pipeline(package, "p6_pipelines", "from p6_steps.work import work", tasks)
    rendered = yaml.safe_load(render_all(name)["apps/base/workflows/trap/workflowtemplate.yaml"])
    assert task_of(rendered, "main", "b")["depends"] == "a.Succeeded"
    [finding] = findings_of(name, tmp_path)
    assert finding.what == "a.on_success(b) makes b depend on a; its docstring says the opposite"
    assert finding.hint == "write a >> b under `with Task.set_next_defaults(on=TaskResult.succeeded)`"
    assert_at(finding, "p6_pipelines/trap.py", "on_success")


# -- P7: bare names ----------------------------------------------------------------------------------------------------


def test_p7_a_bare_name_in_depends_is_satisfied_by_a_skipped_task(tmp_path: Path, package: Package):
    package("p7_steps", work=STEP.format(name="work", n=1))
    tasks = 'work(name="gate", when="1 == 2") >> work(name="roll-out")'
    [finding] = findings_of(pipeline(package, "p7_pipelines", "from p7_steps.work import work", tasks), tmp_path)
    assert finding.where == "main/roll-out"
    assert finding.what == "depends on the bare name 'gate', which is satisfied by a skipped task too"
    assert finding.hint.startswith("write gate.Succeeded")
    assert finding.source.endswith("p7_pipelines/trap.py")
    assert_at(finding, "trap/workflowtemplate.yaml", "depends: gate")


# -- P9: unknown fields ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["retryStrategi", "pendingTimeout"])
def test_p9_a_field_that_hera_drops_without_an_error(field: str):
    files = render_all("lab_pipelines")
    files[NUMBERS] = files[NUMBERS].replace("    retryStrategy:\n", f"    {field}:\n", 1)
    finding = check_files(files)[0]
    assert finding.what == f"Argo has no field {field!r} here"
    assert "Hera drops what it does not know without an error" in finding.hint
    lines = files[NUMBERS].splitlines()
    assert lines[finding.line - 1] == f"    {field}:"


# -- P10: long names ---------------------------------------------------------------------------------------------------


def test_p10_a_name_over_52_characters_does_not_render_and_exits_2(
    package: Package, capsys: pytest.CaptureFixture[str]
):
    package("p10_steps", work=STEP.format(name="work", n=1))
    code = PIPELINE.format(imports="from p10_steps.work import work", tasks='        work(name="a")')
    name = package("p10_pipelines", trap=code.replace('"trap"', f'"{"x" * 49}"'))
    with pytest.raises(BadInput, match=r"trap.py:\d+: 'lab-x+' has 53 characters"):
        render_all(name)
    assert main(["render", "--package", name]) == 2
    assert "Hint: Argo allows 52: shorten" in capsys.readouterr().err
    [finding] = run_checks(Path("nowhere"), name)
    assert finding.what == f"'lab-{'x' * 49}' has 53 characters"
    assert_at(finding, "p10_pipelines/trap.py", "with lab_template")


def test_p10_a_long_name_in_a_file_is_found():
    long = "lab-" + "n" * 49
    found = findings_after(lambda d: d["metadata"].update(name=long), CRON)
    what = f"{long!r} has 53 characters, more than the 52 that Argo allows"
    assert [(finding.where, finding.what) for finding in found] == [("metadata.name", what)]


# -- P11: shared annotations -------------------------------------------------------------------------------------------

SHARED = """
from typing import Annotated
from hera.workflows import Parameter
from hera.workflows.io import Input, Output
from steps._step import step
{shared}

class {kind}Input(Input):
    n: Annotated[int, NUMBER] = 1

class {kind}Output(Output):
    n: int

@step()
def {name}(given: {kind}Input) -> {kind}Output:
    return {kind}Output(n=1)
"""


def test_p11_a_parameter_that_two_steps_share_is_changed_in_place(tmp_path: Path, package: Package):
    shared = 'NUMBER = Parameter(name="n")'
    package(
        "p11_steps",
        one=SHARED.format(shared=shared, kind="One", name="one"),
        two=SHARED.format(shared="from p11_steps.one import NUMBER", kind="Two", name="two"),
    )
    imports = "from p11_steps.one import one\nfrom p11_steps.two import two"
    name = pipeline(package, "p11_pipelines", imports, 'one(name="a")\ntwo(name="b")')
    [finding] = findings_of(name, tmp_path)
    assert finding.what.startswith("TwoInput.n is annotated with the same Parameter object as OneInput.n (")
    assert finding.hint == "Hera changes a Parameter in place when it builds a template: write one for each"
    assert_at(finding, "p11_steps/two.py", "class TwoInput")


# -- P12: a gate that only skips ---------------------------------------------------------------------------------------

GATE = """gate = work(name="gate")
roll = work(name="roll-out", depends="gate.Succeeded", when="{{tasks.gate.outputs.parameters.passed}} == true")"""


def test_p12_a_gate_that_only_skips_leaves_the_workflow_green(tmp_path: Path, package: Package):
    package("p12_steps", work=STEP.format(name="work", n=1))
    name = pipeline(package, "p12_pipelines", "from p12_steps.work import work", GATE)
    [finding] = findings_of(name, tmp_path)
    assert finding.where == "main/roll-out"
    assert finding.what == (
        "'roll-out' is skipped when 'gate' says no in 'passed', and the workflow still ends Succeeded"
    )
    assert finding.hint == "make 'gate' exit with 3 (raise Refused) and depend on gate.Succeeded"
    assert_at(finding, "trap/workflowtemplate.yaml", "when:")


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("p12_waited", GATE + '\nwork(name="tell", depends="roll-out.Skipped")'),
        ("p12_number", GATE.replace("parameters.passed}} == true", "parameters.n}} > 0")),
    ],
)
def test_p12_a_skip_that_somebody_waits_for_or_that_goes_by_a_number_is_none(
    tmp_path: Path, package: Package, name: str, tasks: str
):
    package("p12b_steps", work=STEP.format(name="work", n=1))
    assert findings_of(pipeline(package, name, "from p12b_steps.work import work", tasks), tmp_path) == []

"""Drift, the strict models, and where each finding is: the rendered file and line, and the Python to edit."""

import json
from pathlib import Path

import pytest

from pipelines.check import Finding, run_checks
from pipelines.cli import main
from pipelines.render import write
from tests.pipelines.checking import CRON, NUMBERS, check_after, findings_after, template_of

LAB = "tests/pipelines/fixtures"


def test_the_laboratory_has_nothing_wrong(tmp_path: Path):
    write(tmp_path, "lab_pipelines")
    assert run_checks(tmp_path, "lab_pipelines") == []


def test_an_edited_file_is_a_finding_with_its_first_line_that_differs(tmp_path: Path):
    write(tmp_path, "lab_pipelines")
    committed = (tmp_path / CRON).read_text().splitlines()
    schedule = next(number for number, line in enumerate(committed, 1) if "5 * * * *" in line)
    (tmp_path / CRON).write_text("\n".join(committed).replace("5 * * * *", "6 * * * *"))
    assert run_checks(tmp_path, "lab_pipelines") == [
        Finding(
            file=str(tmp_path / CRON),
            line=schedule,
            where="committed file",
            what=f"differs from what the code renders, first in line {schedule}",
            hint="run `lockstep render` and commit what it wrote",
        )
    ]


def test_a_file_that_nothing_renders_is_a_finding(tmp_path: Path):
    write(tmp_path, "lab_pipelines")
    stale = tmp_path / "apps/base/workflows/old/workflowtemplate.yaml"
    stale.parent.mkdir()
    stale.write_text("# Rendered from pipelines/old.py by `lockstep render`. Do not edit.\n")
    [finding] = run_checks(tmp_path, "lab_pipelines")
    assert (finding.file, finding.line, finding.what) == (str(stale), 1, "nothing renders this file any more")


def test_a_finding_names_the_line_of_what_is_wrong_and_the_step_to_edit():
    def drop(document: dict) -> None:
        template_of(document, "double")["script"]["securityContext"]["readOnlyRootFilesystem"] = False

    [finding] = findings_after(drop)
    assert (finding.file, finding.where) == (NUMBERS, "double")
    assert finding.what == "the container's readOnlyRootFilesystem is not true"
    step = Path(LAB, "lab_steps/double.py")
    line = next(n for n, text in enumerate(step.read_text().splitlines(), 1) if text.startswith("def double"))
    assert finding.source == f"{step}:{line}"


def test_the_line_of_a_finding_is_that_of_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from pipelines.check import check_files
    from pipelines.render import render_all

    files = render_all("lab_pipelines")
    files[NUMBERS] = files[NUMBERS].replace("depends: list.Succeeded", "depends: list")
    line = next(n for n, text in enumerate(files[NUMBERS].splitlines(), 1) if text.strip() == "depends: list")
    [finding] = check_files(files)
    assert (finding.line, finding.where) == (line, "main/each")
    assert finding.source == f"{LAB}/lab_pipelines/numbers.py"


def test_a_misspelt_field_is_found_at_its_line():
    def misspell(document: dict) -> None:
        document["spec"]["pogGC"] = {}

    finding = findings_after(misspell)[0]
    assert (finding.where, finding.what) == ("spec.pogGC", "Argo has no field 'pogGC' here")
    assert "Hera drops what it does not know" in finding.hint


def test_a_value_of_the_wrong_type_is_found():
    found = check_after(lambda d: d["spec"].update(parallelism="two"))
    assert found == [
        ("spec.parallelism", "'parallelism': Input should be a valid integer, unable to parse string as an integer")
    ]


def test_a_document_of_another_kind_is_found():
    found = check_after(lambda d: d.update(kind="Workflow"))
    assert ("kind", "'Workflow' is neither a WorkflowTemplate nor a CronWorkflow") in found


def test_a_construct_outside_the_subset_is_found_at_its_template():
    found = findings_after(lambda d: template_of(d, "each")["dag"].update(target="double"))
    assert [(f.where, f.what) for f in found] == [
        ("each", "uses target (of a dag), which is outside the rendered subset")
    ]


@pytest.mark.parametrize(
    ("template", "key", "value", "construct"),
    [
        ("each", "activeDeadlineSeconds", 10, "activeDeadlineSeconds of a template that is no script"),
        ("each", "timeout", "10s", "timeout of a template that is no script"),
        ("double", "parallelism", 2, "parallelism of a template that is no dag or steps"),
        (
            "double",
            "retryStrategy",
            {"limit": 3, "backoff": {"factor": 2}},
            "a backoff without a duration, with which",
        ),
    ],
)
def test_what_argo_refuses_in_a_template_of_that_kind_is_outside_the_subset(template, key, value, construct: str):
    found = check_after(lambda d: template_of(d, template).update({key: value}))
    assert [where for where, what in found if what.startswith(f"uses {construct}")] == [template]


def test_a_module_that_does_not_import_is_found_at_its_line(tmp_path: Path, package):
    name = package("broken_pipelines", one="import os\n\nos.nothing()\n")
    [finding] = run_checks(tmp_path, name)
    assert finding.file.endswith("broken_pipelines/one.py")
    assert (finding.line, finding.what) == (3, "AttributeError: module 'os' has no attribute 'nothing'")


def test_a_module_that_is_no_python_is_found_at_its_line(tmp_path: Path, package):
    [finding] = run_checks(tmp_path, package("garbled_pipelines", one="x = 1\nx = = 2\n"))
    assert finding.file.endswith("garbled_pipelines/one.py")
    assert (finding.line, finding.what.startswith("SyntaxError: ")) == (2, True)


def test_the_command_prints_file_and_line_first_and_ends_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "manifests", "lab_pipelines")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCKSTEP_MANIFESTS", "manifests")
    Path("manifests", CRON).write_text("edited by hand\n")
    assert main(["check", "--package", "lab_pipelines"]) == 3
    assert capsys.readouterr().out == (
        f"manifests/{CRON}:1: committed file: differs from what the code renders, first in line 1\n"
        "  Hint: run `lockstep render` and commit what it wrote\n"
    )
    assert main(["check", "--package", "lab_pipelines", "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == [
        {
            "file": f"manifests/{CRON}",
            "line": 1,
            "where": "committed file",
            "what": "differs from what the code renders, first in line 1",
            "hint": "run `lockstep render` and commit what it wrote",
            "source": "",
        }
    ]

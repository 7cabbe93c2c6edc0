"""A laptop runs the rendered YAML as a cluster would, or says what it does not run."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import MODES, call, dag, node, phases, script, task_of, template_of, workflow
from lab_steps.gate import GateInput, GateOutput, gate

from lockstep.errors import BadInput, Refused
from pipelines._manifest.expressions import (
    ExpressionError,
    aggregate,
    evaluate_depends,
    evaluate_when,
    item_scope,
    items_of,
    substitute,
)
from pipelines._run.pod import make_pod
from pipelines.local import Node, Run, load_template, run_workflow
from pipelines.render import write
from tests.pipelines.checking import laboratory_documents

Start = Callable[..., Run]


# -- fan-out -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["in this process", "in two workers"])
def test_a_fan_out_over_a_nested_dag_gathers_its_outputs_and_hoists_them(run: Start, mode: str):
    ended = run("numbers", how=MODES[mode], count="3")
    assert (ended.succeeded, ended.exit_code, ended.failed, ended.name) == (True, 0, None, "r1")
    assert ended.outputs == {"total": "12", "keys": '["n"]'}
    names = [
        "list", "each(0).double", "each(0)", "each(1).double", "each(1)", "each(2).double", "each(2)", "each", "sum"
    ]  # fmt: skip
    found = [n.name for n in ended.nodes]
    assert (sorted(found) if mode == "in two workers" else found) == (
        sorted(names) if mode == "in two workers" else names
    )
    assert node(ended, "each").outputs == {"doubled": '["2","4","6"]', "seen": '[{"n":1},{"n":2},{"n":3}]'}
    assert node(ended, "each(1)").outputs == {"doubled": "4", "seen": '{"n": 2}'}


def test_an_empty_fan_out_is_skipped_and_what_reads_it_has_its_default(run: Start):
    ended = run("numbers", count="0")
    assert phases(ended) == {"list": "Succeeded", "each": "Skipped", "sum": "Succeeded"}
    assert ended.outputs["total"] == "0"
    assert node(ended, "each").message == "nothing to fan out over"


def test_a_task_that_waits_for_success_only_is_omitted_after_an_empty_fan_out(rendered, run: Start):
    manifest = rendered("numbers")
    task_of(manifest, "main", "sum")["depends"] = "each.Succeeded"
    ended = run(manifest, count="0")
    assert phases(ended)["sum"] == "Omitted"


def test_an_output_of_a_task_that_did_not_run_is_an_error_of_its_dag_unless_it_has_a_default(rendered, run: Start):
    """As Argo >= 4.0.7 has it."""
    manifest = rendered("numbers")
    task_of(manifest, "main", "sum")["depends"] = "each.Succeeded"
    ended = run(manifest, count="0")
    assert (ended.exit_code, ended.outputs, ended.failed) == (2, {}, node(ended, "main"))
    assert node(ended, "main").message == (
        "its output 'total': {{tasks.sum.outputs.parameters.total}} has no value: its task did not run, and it has no default"
    )
    for output in template_of(manifest, "main")["outputs"]["parameters"]:
        output["valueFrom"]["default"] = "none"
    ended = run(manifest, count="0")
    assert (ended.succeeded, ended.outputs) == (True, {"total": "none", "keys": "none"})


def test_an_output_of_a_task_that_did_not_run_is_its_template_s_default(rendered, run: Start):
    manifest = rendered("numbers")
    task_of(manifest, "main", "sum")["depends"] = "each.Succeeded"
    for output in template_of(manifest, "sum-up")["outputs"]["parameters"]:
        output["valueFrom"]["default"] = "-1"
    assert run(manifest, count="0").outputs == {"total": "-1", "keys": "-1"}


def test_an_absent_output_without_a_default_is_an_error_of_the_task(rendered, run: Start):
    manifest = rendered("numbers")
    del template_of(manifest, "sum-up")["inputs"]["parameters"][0]["default"]
    ended = run(manifest, count="0")
    assert (ended.exit_code, ended.failed) == (2, node(ended, "sum"))
    assert node(ended, "sum").message == (
        "{{tasks.each.outputs.parameters.doubled}} has no value: its task did not run, and input 'numbers' has no default"
    )


@pytest.mark.parametrize("mode", ["in this process", "in two workers"])
def test_one_failed_item_fails_the_fan_out_but_the_others_run(run: Start, mode: str):
    ended = run("numbers", how=MODES[mode], count="3", refuse="2")
    assert (ended.succeeded, ended.exit_code) == (False, 2)
    assert ended.failed == node(ended, "each(1).double")
    assert phases(ended) == {
        "list": "Succeeded",
        "each(0).double": "Succeeded", "each(0)": "Succeeded",
        "each(1).double": "Failed", "each(1)": "Failed",
        "each(2).double": "Succeeded", "each(2)": "Succeeded",
        "each": "Failed",
        "sum": "Omitted",
    }  # fmt: skip
    assert node(ended, "each").message == "1 of 3 items failed"
    assert node(ended, "each").outputs["doubled"] == '["2","6"]'
    assert ended.outputs == {}


def test_any_succeeded_and_all_failed_look_at_the_items(rendered, run: Start):
    manifest = rendered("numbers")
    for name, depends in (("some", "each.AnySucceeded"), ("none", "each.AllFailed")):
        template_of(manifest, "main")["dag"]["tasks"].append(
            {"name": name, "template": "sum-up", "depends": depends, "arguments": {}}
        )
    ended = run(manifest, count="2", refuse="1")
    assert (phases(ended)["some"], phases(ended)["none"]) == ("Succeeded", "Omitted")
    ended = run(manifest, count="1", refuse="1")
    assert (phases(ended)["some"], phases(ended)["none"]) == ("Omitted", "Succeeded")


def test_with_param_that_is_no_list_is_an_error_of_the_task(rendered, run: Start):
    manifest = rendered("numbers")
    task_of(manifest, "main", "each")["withParam"] = "{{inputs.parameters.count}}"
    ended = run(manifest, count="3")
    assert (ended.exit_code, node(ended, "each").phase) == (2, "Error")
    assert node(ended, "each").message == "withParam is not a JSON list: '3'"


# -- exit codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "way"), [(1, "raise"), (2, "raise"), (3, "raise"), (3, "return"), (2, "exit")])
def test_an_exit_code_fails_the_run_and_omits_what_waits_for_success(run: Start, code: int, way: str):
    ended = run("gated", code=str(code), way=way)
    assert (ended.succeeded, ended.exit_code) == (False, code)
    assert phases(ended) == {
        "gate": "Failed",
        "roll-out": "Omitted",
        "announce": "Omitted",
        "report": "Succeeded",
        "onExit.note": "Succeeded",
        "onExit": "Succeeded",
    }
    assert ended.failed is not None
    assert (ended.failed.name, ended.failed.exit_code) == ("gate", code)
    assert node(ended, "report").outputs == {"text": f"Failed {code}"}


def test_a_refusal_says_why_in_its_message_and_its_log(run: Start):
    refused = run("gated", code="3").failed
    assert refused is not None
    assert refused.message == "the gate says no\n\nHint: read the report"
    assert refused.log is not None
    assert refused.log.read_text() == "Refused: the gate says no\n\nHint: read the report\n"


def test_a_gate_that_returns_its_exit_code_leaves_its_outputs(run: Start):
    assert node(run("gated", code="3", way="return"), "gate").outputs == {"report": "written"}


def test_a_bug_in_a_step_is_exit_code_1_with_its_traceback_in_the_log(run: Start):
    failed = run("gated", code="1", way="crash").failed
    assert failed is not None
    assert (failed.exit_code, failed.message) == (1, "ValueError: a bug")
    assert failed.log is not None
    assert 'raise ValueError("a bug")' in failed.log.read_text()


def test_a_refusal_outweighs_other_failures(run: Start):
    assert run("gated", code="3", broken="true").exit_code == 3


def test_a_failure_that_a_last_task_makes_up_for_leaves_the_run_succeeded_as_on_argo(rendered, run: Start):
    manifest = rendered("gated")
    tasks = template_of(manifest, "main")["dag"]["tasks"]
    template_of(manifest, "main")["dag"]["tasks"] = [t for t in tasks if t["name"] in ("gate", "report")]
    ended = run(manifest, code="3")
    assert phases(ended)["gate"] == "Failed"
    assert (ended.succeeded, ended.exit_code) == (True, 0)


def test_a_step_raises_its_own_errors_when_called_plainly():
    assert gate(GateInput(code=0)) == GateOutput(report="fine")
    with pytest.raises(Refused, match="the gate says no"):
        gate(GateInput(code=3))


def test_a_pod_ends_with_the_exit_code_and_leaves_its_output_files(tmp_path: Path):
    """What a cluster runs: Hera's runner, in a process of its own."""
    inputs = tmp_path / "inputs"
    inputs.write_text('[{"name": "code", "value": "3"}, {"name": "way", "value": "raise"}]')
    path = os.pathsep.join([str(Path(__file__).parent / "fixtures"), str(Path.cwd())])
    ended = subprocess.run(
        [sys.executable, "-m", "hera.workflows.runner", "-e", "lab_steps.gate:gate", str(inputs)],
        env={**os.environ, "PYTHONPATH": path, "hera__outputs_directory": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr == "Refused: the gate says no\n\nHint: read the report\n"
    assert (tmp_path / "parameters" / "report").read_text() == ""


# -- on exit -----------------------------------------------------------------------------------------------------------


def test_on_exit_is_told_that_all_is_well(run: Start):
    ended = run("gated")
    assert list(phases(ended)) == ["gate", "roll-out", "announce", "report", "onExit.note", "onExit"]
    assert node(ended, "onExit.note").outputs == {"note": 'Succeeded "[]"'}


def test_on_exit_is_told_the_failures_as_json_in_json(run: Start):
    status, _, failures = node(run("gated", code="3"), "onExit.note").outputs["note"].partition(" ")
    assert status == "Failed"
    assert json.loads(json.loads(failures)) == [
        {
            "displayName": "gate",
            "templateName": "gate",
            "phase": "Failed",
            "message": "the gate says no\n\nHint: read the report",
        }
    ]


def test_a_failing_on_exit_fails_the_run(run: Start):
    ended = run("gated", broken="true")
    assert (ended.succeeded, ended.exit_code) == (False, 1)
    assert ended.failed == node(ended, "onExit.note")


# -- parameters --------------------------------------------------------------------------------------------------------

POISON = [
    "'; rm -rf /",
    "{{=1+1}}",
    "{{inputs.parameters.loud}}",
    "{{workflow.name}}",
    "two\nlines",
    "\r\n\ttabs",
    "größe ☃ 🎉",
    '"quoted" \\ back',
    "$(id) `id` ${HOME}",
    "null",
    "[1, 2]",
    "",
    "0" * 10_000,
]


@pytest.mark.parametrize("text", POISON)
def test_a_poisoned_parameter_arrives_as_data(run: Start, text: str):
    assert run("say", text=text).outputs == {"text": text}


@pytest.mark.parametrize(
    ("how", "chosen"),
    [({"jobs": 2}, slice(None)), ({"jobs": 2, "isolate": True}, slice(9, 12))],
    ids=["in two workers", "isolated"],
)
def test_poison_arrives_as_data_in_other_processes_too(run: Start, how: dict[str, Any], chosen: slice):
    """Each in a pod of its own, and all of it together with a megabyte."""
    texts = POISON[chosen]
    manifest = workflow(
        dag(
            *(call(f"t{n}", "echo", {"text": f"{{{{inputs.parameters.t{n}}}}}"}) for n in range(len(texts))),
            call("all", "echo", {"text": "{{inputs.parameters.all}}"}),
            inputs=(*(f"t{n}" for n in range(len(texts))), "all"),
        ),
        script("echo", {"text": None, "loud": "false"}, ("text",)),
        parameters=(*(f"t{n}" for n in range(len(texts))), "all"),
    )
    everything = "".join(POISON) + "x" * 2**20
    ended = run(manifest, how=how, **{f"t{n}": text for n, text in enumerate(texts)}, all=everything)
    assert {n: node(ended, f"t{n}").outputs["text"] for n in range(len(texts))} == dict(enumerate(texts))
    assert node(ended, "all").outputs["text"] == everything


@settings(max_examples=40)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_goes_through_two_steps_unchanged(tmp_path_factory: pytest.TempPathFactory, text: str):
    manifest = laboratory_documents()["apps/base/workflows/say/workflowtemplate.yaml"]
    logs = tmp_path_factory.mktemp("any")
    # each step's file loses one line break at its end, as on Argo
    assert run_workflow(manifest, {"text": text}, logs_dir=logs).outputs == {
        "text": text.removesuffix("\n").removesuffix("\n")
    }


def test_when_skips_a_task(rendered, run: Start):
    manifest = rendered("say")
    template_of(manifest, "main")["outputs"]["parameters"][0]["valueFrom"]["default"] = "nothing"
    ended = run(manifest, text="a", again="no")
    assert phases(ended) == {"once": "Succeeded", "twice": "Skipped"}
    assert (ended.succeeded, ended.outputs) == (True, {"text": "nothing"})


def test_a_value_cannot_change_what_a_condition_means(run: Start):
    ended = run("say", text="a", again="no' == '' || 'yes")
    assert node(ended, "twice").phase == "Error"
    assert "which Argo would read as syntax" in node(ended, "twice").message


def test_a_misspelt_parameter_names_the_nearest(run: Start):
    with pytest.raises(BadInput, match="workflow 'lab-numbers' has no parameter 'coutn'") as error:
        run("numbers", coutn="3")
    assert error.value.hint == "did you mean 'count'?"


def test_a_missing_parameter_is_named(run: Start):
    with pytest.raises(BadInput, match="workflow 'lab-numbers' needs a value for its parameter 'count'") as error:
        run("numbers")
    assert error.value.hint == "pass -p count=…"


def test_a_value_outside_the_enum_names_the_nearest(run: Start):
    with pytest.raises(BadInput, match="parameter 'way' cannot be 'rise'") as error:
        run("gated", way="rise")
    assert error.value.hint == "did you mean 'raise'?"


# -- logs --------------------------------------------------------------------------------------------------------------


def test_all_output_of_a_node_goes_to_its_log_and_none_to_the_terminal(run: Start, capfd: pytest.CaptureFixture[str]):
    ended = run("say", text="a", loud="true")
    log = node(ended, "once").log
    assert log is not None
    assert log.name == "001-once.log"
    assert log.read_text().splitlines() == ["python out", "python err", "descriptor out", "child out", "null"]
    assert capfd.readouterr() == ("", "")


def test_each_node_is_told_as_it_ends(rendered, tmp_path: Path):
    told: list[Node] = []
    begun: list[str] = []
    watch = SimpleNamespace(started=begun.append, ended=told.append)
    ended = run_workflow(rendered("numbers"), {"count": "1"}, logs_dir=tmp_path / "r", watch=watch)
    assert told == ended.nodes
    assert [n.name for n in told] == ["list", "each(0).double", "each(0)", "each", "sum"]
    assert begun == ["list", "each(0).double", "sum"]


def test_a_run_leaves_the_environment_and_the_temporary_folder_as_they_were(run: Start, monkeypatch, tmp_path: Path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = dict(os.environ)
    run("numbers", count="1")
    assert dict(os.environ) == before
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


# -- what is not interpreted -------------------------------------------------------------------------------------------

REFUSED = {
    "two bodies": (
        lambda m: template_of(m, "each").update(steps=[]),
        "template 'each' uses a template that is not exactly one of dag, script, steps and suspend",
    ),
    "suspend for a while": (
        lambda m: m["spec"]["templates"].append({"name": "wait", "suspend": {"duration": "1h"}}),
        "template 'wait' uses duration",
    ),
    "suspend for nothing": (
        lambda m: m["spec"]["templates"].append({"name": "wait", "suspend": {}}),
        "template 'wait' uses suspend without an output that is supplied",
    ),
    "resource": (lambda m: template_of(m, "each").update(resource={}), "template 'each' uses resource"),
    "container": (lambda m: template_of(m, "each").update(container={}), "template 'each' uses container"),
    "containerSet": (lambda m: template_of(m, "each").update(containerSet={}), "template 'each' uses containerSet"),
    "http": (lambda m: template_of(m, "each").update(http={}), "template 'each' uses http"),
    "plugin": (lambda m: template_of(m, "each").update(plugin={}), "template 'each' uses plugin"),
    "data": (lambda m: template_of(m, "each").update(data={}), "template 'each' uses data"),
    "daemon": (lambda m: template_of(m, "double").update(daemon=True), "template 'double' uses daemon"),
    "memoize": (lambda m: template_of(m, "double").update(memoize={}), "template 'double' uses memoize"),
    "sidecars": (lambda m: template_of(m, "double").update(sidecars=[]), "template 'double' uses sidecars"),
    "initContainers": (
        lambda m: template_of(m, "double").update(initContainers=[]),
        "template 'double' uses initContainers",
    ),
    "a field of the future": (lambda m: template_of(m, "double").update(warp=9), "template 'double' uses warp"),
    "no body": (
        lambda m: template_of(m, "each").pop("dag"),
        "template 'each' uses a template that is not exactly one",
    ),
    "input artifacts": (
        lambda m: template_of(m, "each")["inputs"].update(artifacts=[]),
        "template 'each' uses artifacts",
    ),
    "output artifacts": (
        lambda m: template_of(m, "double")["outputs"].update(artifacts=[]),
        "template 'double' uses artifacts",
    ),
    "argument artifacts": (
        lambda m: task_of(m, "main", "each")["arguments"].update(artifacts=[]),
        "template 'main' uses artifacts",
    ),
    "task hooks": (lambda m: task_of(m, "main", "each").update(hooks={}), "template 'main' uses hooks"),
    "workflow hooks": (lambda m: m["spec"].update(hooks={}), "workflow 'lab-numbers' uses hooks"),
    "a template of the whole cluster": (
        lambda m: task_of(m, "main", "each").update(templateRef={"clusterScope": True}),
        "template 'main' uses clusterScope",
    ),
    "a group retried": (
        lambda m: template_of(m, "each").update(retryStrategy={"limit": 1}),
        "template 'each' uses retryStrategy of a template that is no script",
    ),
    "a workflow retried": (lambda m: m["spec"].update(retryStrategy={"limit": 1}), "'lab-numbers' uses retryStrategy"),
    "retries for ever": (
        lambda m: template_of(m, "double")["retryStrategy"].pop("limit"),
        "template 'double' uses a retryStrategy without a limit",
    ),
    "retries for hours": (
        lambda m: template_of(m, "double")["retryStrategy"]["backoff"].update(maxDuration="1h"),
        "template 'double' uses maxDuration",
    ),
    "semaphore": (
        lambda m: template_of(m, "each")["synchronization"].update(semaphores=[]),
        "template 'each' uses semaphores",
    ),
    "a mutex in a database": (
        lambda m: template_of(m, "each")["synchronization"]["mutexes"][0].update(database=True),
        "template 'each' uses database",
    ),
    "no pods at all": (lambda m: m["spec"].update(parallelism=0), "workflow 'lab-numbers' uses parallelism 0"),
    "inline": (lambda m: task_of(m, "main", "each").update(inline={}), "template 'main' uses inline"),
    "dependencies": (
        lambda m: task_of(m, "main", "each").update(dependencies=[]),
        "template 'main' uses dependencies",
    ),
    "withItems": (lambda m: task_of(m, "main", "each").update(withItems=[1]), "template 'main' uses withItems"),
    "withSequence": (
        lambda m: task_of(m, "main", "each").update(withSequence={}),
        "template 'main' uses withSequence",
    ),
    "continueOn": (lambda m: task_of(m, "main", "each").update(continueOn={}), "template 'main' uses continueOn"),
    "task onExit": (lambda m: task_of(m, "main", "each").update(onExit="x"), "template 'main' uses onExit"),
    "dag target": (lambda m: template_of(m, "main")["dag"].update(target="x"), "template 'main' uses target"),
    "templateDefaults": (
        lambda m: m["spec"].update(templateDefaults={}),
        "workflow 'lab-numbers' uses templateDefaults",
    ),
    "podSpecPatch": (lambda m: m["spec"].update(podSpecPatch=""), "workflow 'lab-numbers' uses podSpecPatch"),
    "workflowTemplateRef": (
        lambda m: m["spec"].update(workflowTemplateRef={}),
        "workflow 'lab-numbers' uses workflowTemplateRef",
    ),
    "globalName": (
        lambda m: template_of(m, "double")["outputs"]["parameters"][0].update(globalName="x"),
        "template 'double' uses globalName",
    ),
    "configMapKeyRef": (
        lambda m: template_of(m, "double")["inputs"]["parameters"][0].update(valueFrom={"configMapKeyRef": {}}),
        "template 'double' uses valueFrom",
    ),
    "output expression": (
        lambda m: template_of(m, "main")["outputs"]["parameters"][0].update(valueFrom={"expression": "1"}),
        "template 'main' uses expression",
    ),
    "output elsewhere": (
        lambda m: template_of(m, "double")["outputs"]["parameters"][0].update(valueFrom={"path": "/etc/passwd"}),
        "template 'double' uses output path /etc/passwd",
    ),
    "expression tag": (
        lambda m: task_of(m, "main", "each")["arguments"]["parameters"][0].update(value="{{=1 + 1}}"),
        r"template 'main' uses the expression tag \{\{=1 \+ 1\}\}",
    ),
    "inline script": (
        lambda m: template_of(m, "double")["script"].update(source="print(1)"),
        "template 'double' uses an inline script",
    ),
    "shell": (
        lambda m: template_of(m, "double")["script"].update(command=["sh"]),
        "template 'double' uses command 'sh",
    ),
    "workingDir": (
        lambda m: template_of(m, "double")["script"].update(workingDir="/"),
        "template 'double' uses workingDir",
    ),
    "schedule": (lambda m: m.update(kind="CronWorkflow"), "'lab-numbers' is a CronWorkflow"),
}


@pytest.mark.parametrize("construct", REFUSED)
def test_a_construct_that_is_not_interpreted_is_refused_by_name_before_anything_runs(
    rendered, run, tmp_path, construct
):
    change, sentence = REFUSED[construct]
    manifest = rendered("numbers")
    change(manifest)
    with pytest.raises(BadInput, match=sentence):
        run(manifest, count="1")
    assert not (tmp_path / "runs").exists()


def test_what_only_a_cluster_acts_on_is_accepted(rendered, run: Start):
    manifest = rendered("numbers")
    manifest["spec"] |= {
        "serviceAccountName": "x", "podMetadata": {}, "tolerations": [], "nodeSelector": {}, "priority": 1, "volumes": [],
        "securityContext": {}, "synchronization": {}, "metrics": {}, "imagePullSecrets": [],
    }  # fmt: skip
    template_of(manifest, "double") | {"activeDeadlineSeconds": 5, "metadata": {}}
    assert run(manifest, count="2").outputs["total"] == "6"


def test_a_variable_that_names_a_file_of_a_secret_is_the_clusters_and_not_set_here(rendered, tmp_path: Path):
    template = template_of(rendered("numbers"), "double")
    template["volumes"] += [{"name": "key", "secret": {"secretName": "lab-key"}}, {"name": "c", "configMap": {}}]
    template["script"]["volumeMounts"] += [{"name": "key", "mountPath": "/key"}, {"name": "c", "mountPath": "/c"}]
    given = {"KEY_FILE": "/key/a.pem", "OTHER": "/keys/a.pem", "CONFIGURED": "/c/a.toml", "PLAIN": "1"}
    template["script"]["env"] = [{"name": name, "value": value} for name, value in given.items()]
    pod = make_pod(template, {}, {}, folder=tmp_path / "pod", log=tmp_path / "log")
    assert {name: pod.environment.get(name) for name in given} == given | {"KEY_FILE": None}


def test_a_reference_that_does_not_hold_is_refused_before_anything_runs(rendered, run: Start):
    manifest = rendered("numbers")
    task_of(manifest, "main", "each")["template"] = "eahc"
    with pytest.raises(BadInput, match="workflow 'lab-numbers', main/each: calls 'eahc', which is no template"):
        run(manifest, count="1")


# -- finding a workflow ------------------------------------------------------------------------------------------------


def test_a_workflow_is_found_with_and_without_its_project(tmp_path: Path):
    write(tmp_path, "lab_pipelines")
    assert load_template(tmp_path, "say") == load_template(tmp_path, "lab-say")
    assert load_template(tmp_path, "say")["metadata"]["name"] == "lab-say"


def test_an_unknown_workflow_names_the_nearest(tmp_path: Path):
    write(tmp_path, "lab_pipelines")
    with pytest.raises(BadInput, match="there is no workflow 'numbrs'") as error:
        load_template(tmp_path, "numbrs")
    assert error.value.hint == "did you mean 'numbers'?"


def test_an_unknown_workflow_is_also_near_with_its_project(tmp_path: Path):
    write(tmp_path, "lab_pipelines")
    with pytest.raises(BadInput) as error:
        load_template(tmp_path, "lab-numbrs")
    assert error.value.hint == "did you mean 'numbers'?"


def test_an_empty_folder_says_to_render(tmp_path: Path):
    with pytest.raises(BadInput, match="no rendered workflow") as error:
        load_template(tmp_path, "say")
    assert "lockstep render" in error.value.hint


# -- the little languages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "value"),
    [
        ("true == true", True),
        ("3 > 0", True),
        ("0 > 0", False),
        ("{{n}} >= 10", True),
        ("{{n}} < 9.5", False),
        ("yes == 'yes' && !(1 == 2)", True),
        ("a == b || a == a && 1 == 2", False),
        ('"{{text}}" != ""', True),
        ("{{status}} == Failed", True),
        ("'{{text}}' == 'two words'", True),
        ("10 == 010", True),
        ("1 == true", False),
        ("'10' == {{n}}", False),
        ("'{{text}}' != '2018-07-01 or so'", True),
    ],
)
def test_when(when: str, value: bool):
    assert evaluate_when(when, {"n": "10", "text": "two words", "status": "Failed"}) is value


ODD = {
    "view": "customer-spend", "path": "a/b", "dotted": "a.b", "time": "2018-07-01T00:00:00Z", "keyword": "in", "minus": "5-3",
    "negative": "-5", "hexadecimal": "0x10", "exponent": "1e3", "underscore": "_a", "letter": "é", "empty": "",
}  # fmt: skip
"""What govaluate, which reads `when` in Argo, would make something else of, or nothing."""


@pytest.mark.parametrize(
    ("when", "sentence"),
    [
        ("{{text}} == x", "put quotes around the tag: {{text}} stands for 'two words'"),
        *((f"{{{{{name}}}}} == x", f"put quotes around the tag: {{{{{name}}}}} stands for") for name in ODD),
        ("x == a-b", "when: put quotes around a-b"),
        ("x == in", "when: put quotes around in"),
        ("'{{time}}' == x", "{{time}}' stands for \"'2018-07-01T00:00:00Z'\": Argo compares it as a time"),
        ("x != '2018-07-01'", "'2018-07-01': Argo compares it as a time"),
        ("x != '3:04PM'", "compares it as a time"),
        ("x != 'Mon Jan  2 15:04:05 2006'", "compares it as a time"),
        ("true &&!false", "cannot read"),
        ("!! true", "cannot read"),
        ("true < false", "has no answer"),
        ("'{{quote}}' == 'x'", "which Argo would read as syntax"),
        ("1 ==", "a term is missing"),
        ("(1 == 1", "a parenthesis is not closed"),
        ("1 == 1 2", "cannot read"),
        ("a < 1", "has no answer"),
        ("yes", "is neither true nor false"),
        ("'open", "cannot read"),
        ("{{nothing}} == 1", "names nothing here"),
        ("{{absent}} == 1", "its task did not run"),
    ],
)
def test_when_that_cannot_be_read_says_so(when: str, sentence: str):
    with pytest.raises(ExpressionError, match=re.escape(sentence)):
        evaluate_when(when, {"text": "two words", "quote": "a'b", "absent": None, **ODD})


@pytest.mark.parametrize(
    ("depends", "value"),
    [
        ("a.Succeeded", True),
        ("a.Succeeded && b.Succeeded", False),
        ("a.Succeeded && (b.Succeeded || b.Skipped)", True),
        ("!b.Succeeded", True),
        ("b.Failed || a.Failed || a-b_1.Failed", True),
        ("", True),
    ],
)
def test_depends(depends: str, value: bool):
    ended = {"a": "Succeeded", "b": "Skipped", "a-b_1": "Failed"}
    assert evaluate_depends(depends, lambda term: ended[term.task] == term.result) is value


def test_a_value_is_not_read_again_for_tags():
    assert substitute("{{a}} {{ b }}", {"a": "{{b}}", "b": "{{=1+1}}"}) == "{{b}} {{=1+1}}"


def test_fan_out_values_are_gathered_like_argo_does():
    assert aggregate(["1", "2"]) == '["1","2"]'
    assert aggregate(['{"b": 1, "a": 2}', "[2]"]) == '[{"a":2,"b":1},[2]]'
    assert aggregate(['{"a": 1}', "x"]) == '["{\\"a\\": 1}","x"]'
    assert aggregate([]) == "[]"


def test_a_big_integer_in_a_gathered_object_is_refused_because_argo_rounds_it():
    assert aggregate([f'{{"snapshot": {2**53}}}']) == f'[{{"snapshot":{2**53}}}]'
    with pytest.raises(ExpressionError, match=f"Argo rounds {2**53 + 1}"):
        aggregate([f'{{"snapshot": [{2**53 + 1}]}}'])
    assert aggregate([str(2**63)]) == f'["{2**63}"]'


def test_an_item_is_text_or_compact_json_and_its_fields_are_too():
    assert item_scope("a") == {"item": "a"}
    assert item_scope(3) == {"item": "3"}
    item = items_of('[{"n": 9007199254740993, "b": true, "o": {"k": "\\"v"}, "t": "x"}]')[0]
    assert item_scope(item) == {
        "item": '{"b":true,"n":9007199254740993,"o":{"k":"\\"v"},"t":"x"}',
        "item.n": "9007199254740993",
        "item.b": "true",
        "item.o": '{"k":"\\"v"}',
        "item.t": "x",
    }


def test_a_text_item_that_argo_would_hand_on_escaped_is_refused():
    with pytest.raises(ExpressionError, match="escaped"):
        item_scope({"text": 'say "hi"'})

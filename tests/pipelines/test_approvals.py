"""A suspended node goes on when a person says so, at a terminal or beforehand, and never by itself."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hera.workflows import DAG, Parameter, Suspend, WorkflowTemplate
from hera.workflows.models import ValueFrom
from lab import Manifest, call, dag, node, phases, script, steps, workflow

from lockstep.errors import BadInput
from pipelines.local import Question, Run, Terms, run_workflow

Start = Callable[..., Run]
ECHO = script("echo", {"text": None, "loud": "false"}, ("text",))


@pytest.fixture
def release() -> Manifest:
    """As Hera renders it: a wait for a decision, and what happens then."""
    with WorkflowTemplate(name="lab-release", entrypoint="main", arguments=[Parameter(name="model")]) as template:
        approve = Suspend(
            name="approve", intermediate_parameters=[Parameter(name="decision", enum=["no", "yes"], default="no")]
        )
        decided = ValueFrom(parameter="{{tasks.approve.outputs.parameters.decision}}")
        with DAG(
            name="main",
            inputs=[Parameter(name="model")],
            outputs=[Parameter(name="decision", value_from=decided)],
        ):
            approve(name="approve")
    manifest: Manifest = template.to_dict()
    manifest["spec"]["templates"].append(ECHO)
    manifest["spec"]["templates"][1]["dag"]["tasks"].append(
        call(
            "roll-out",
            "echo",
            {"text": "{{inputs.parameters.model}}"},
            depends="approve.Succeeded",
            when="{{tasks.approve.outputs.parameters.decision}} == yes",
        )
    )
    return manifest


@pytest.mark.parametrize("key", ["approve", "approve.decision"])
@pytest.mark.parametrize(("decision", "phase"), [("yes", "Succeeded"), ("no", "Skipped")])
def test_a_decision_that_was_given_beforehand_is_taken(
    run: Start, release: Manifest, key: str, decision: str, phase: str
):
    ended = run(release, approvals={key: decision}, model="3")
    assert phases(ended) == {"approve": "Succeeded", "roll-out": phase}
    assert (ended.succeeded, ended.outputs) == (True, {"decision": decision})
    assert node(ended, "approve").kind == "suspend"


@pytest.mark.parametrize("how", [{}, {"jobs": 2}])
def test_without_a_person_or_a_decision_the_node_is_refused_and_says_what_to_give(
    run: Start, release: Manifest, how: dict[str, Any]
):
    ended = run(release, how=how, model="3")
    assert phases(ended) == {"approve": "Failed", "roll-out": "Omitted"}
    assert (ended.succeeded, ended.exit_code, ended.failed) == (False, 3, node(ended, "approve"))
    assert node(ended, "approve").message == (
        "nobody is here to decide: run it at a terminal, or give --approve approve.decision=no|yes"
    )


def test_an_approval_that_is_not_reached_is_not_asked_for(run: Start, release: Manifest):
    release["spec"]["templates"][1]["dag"]["tasks"][0]["when"] = "1 == 2"
    release["spec"]["templates"][1]["outputs"]["parameters"][0]["valueFrom"]["default"] = "none"
    ended = run(release, model="3")
    assert (phases(ended)["approve"], ended.outputs) == ("Skipped", {"decision": "none"})


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_person_is_asked_in_the_main_thread_with_what_is_to_be_decided(tmp_path: Path, jobs: int):
    asked: list[Question] = []

    def ask(question: Question) -> str:
        assert threading.current_thread() is threading.main_thread()
        asked.append(question)
        return "later"

    approve = {
        "name": "approve",
        "suspend": {},
        "inputs": {"parameters": [{"name": "model"}, {"name": "when", "description": "when it goes live"}]},
        "outputs": {"parameters": [{"name": "when", "valueFrom": {"supplied": {}}}]},
    }
    manifest = workflow(
        steps(
            [
                call("approve", "approve", {"model": "{{item}}", "when": "?"}, withParam='["3", "4"]'),
                call("other", "echo", {"text": "x"}),
            ]
        ),
        approve,
        ECHO,
    )
    ended = run_workflow(manifest, {}, logs_dir=tmp_path / "r", jobs=jobs, terms=Terms(ask=ask))
    assert ended.succeeded
    assert node(ended, "[0].approve").outputs == {"when": '["later","later"]'}
    assert sorted(asked, key=lambda question: question.node) == [
        Question("[0].approve(0)", "when", (), "when it goes live", {"model": "3"}),
        Question("[0].approve(1)", "when", (), "when it goes live", {"model": "4"}),
    ]


def test_each_value_of_a_node_that_waits_for_two_is_named(run: Start):
    two = {
        "name": "two",
        "suspend": {},
        "inputs": {"parameters": [{"name": n, "default": ""} for n in ("who", "why")]},
        "outputs": {"parameters": [{"name": n, "valueFrom": {"supplied": {}}} for n in ("who", "why")]},
    }
    manifest = workflow(dag(call("a", "two"), call("b", "two")), two)
    given = {"a.who": "me", "a.why": "=", "b.who": "you"}
    ended = run(manifest, approvals=given)
    assert node(ended, "a").outputs == {"who": "me", "why": "="}
    assert node(ended, "b").message == "nobody is here to decide: run it at a terminal, or give --approve b.why=VALUE"
    with pytest.raises(BadInput, match="--approve a: nothing of that name waits"):
        run(manifest, approvals={"a": "me"})


@pytest.mark.parametrize(
    ("approvals", "sentence", "hint"),
    [
        ({"aprove": "yes"}, "--approve aprove: nothing of that name waits for an approval", "'approve'"),
        ({"approve.decison": "yes"}, "nothing of that name waits", "'approve.decision'"),
        ({"roll-out": "yes"}, "nothing of that name waits", "approve"),
        ({"approve": "yse"}, "--approve approve cannot be 'yse'", "did you mean 'yes'?"),
    ],
)
def test_an_approval_that_nothing_can_wait_for_is_refused_before_anything_runs(
    run: Start, release: Manifest, tmp_path: Path, approvals: dict[str, str], sentence: str, hint: str
):
    with pytest.raises(BadInput, match=sentence) as error:
        run(release, approvals=approvals, model="3")
    assert hint in error.value.hint
    assert not (tmp_path / "runs").exists()


def test_an_approval_of_a_workflow_without_any_is_refused(run: Start):
    with pytest.raises(BadInput) as error:
        run(workflow(dag(call("a", "echo", {"text": "x"})), ECHO), approvals={"a": "yes"})
    assert error.value.hint == "no node of it waits for an approval"


def test_a_node_deep_inside_a_fan_out_is_named_by_its_path(run: Start, release: Manifest):
    templates = release["spec"]["templates"]
    inner = next(t for t in templates if t["name"] == "main") | {"name": "inner"}
    outer = dag(call("each", "inner", {"model": "{{item}}"}, withParam='["1", "2"]'), name="main", inputs=("model",))
    release["spec"]["templates"] = [outer, inner, *(t for t in templates if t["name"] != "main")]
    ended = run(release, approvals={"each(0).approve": "yes", "each(1).approve.decision": "no"}, model="x")
    assert (phases(ended)["each(0).roll-out"], phases(ended)["each(1).roll-out"]) == ("Succeeded", "Skipped")

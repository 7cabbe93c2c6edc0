"""Groups of steps, and templates of other documents."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from lab import MODES, Manifest, call, dag, hoisted, node, phases, script, steps, workflow

from lockstep.errors import BadInput
from pipelines._checks.lint import lint
from pipelines.local import Run, load_library, load_template

Start = Callable[..., Run]
ECHO = script("echo", {"text": None, "loud": "false"}, ("text",))
GATE = script("gate", {"code": None, "way": "raise"}, ("report",))


# -- steps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["in this process", "in two workers"])
def test_groups_of_steps_run_in_order_and_hand_on_their_outputs(run: Start, mode: str):
    manifest = workflow(
        steps(
            [call("a", "echo", {"text": "{{inputs.parameters.text}}"}), call("b", "echo", {"text": "b"})],
            [
                call(
                    "both",
                    "echo",
                    {
                        "text": "{{steps.a.outputs.parameters.text}}+{{steps.b.outputs.parameters.text}} {{steps.a.status}}"
                    },
                    when="{{steps.b.status}} == Succeeded",
                )
            ],
            inputs=("text",),
            outputs={"parameters": [hoisted("text", "steps.both")]},
        ),
        ECHO,
        parameters=("text",),
    )
    ended = run(manifest, how=MODES[mode], text="{{=1+1}}")
    assert ended.outputs == {"text": "{{=1+1}}+b Succeeded"}
    assert phases(ended) == {"[0].a": "Succeeded", "[0].b": "Succeeded", "[1].both": "Succeeded"}
    assert [n.name for n in ended.nodes][-1] == "[1].both"


def test_a_failed_step_lets_its_group_end_and_fails_the_template(run: Start):
    manifest = workflow(
        dag(call("all", "groups")),
        steps(
            [call("bad", "gate", {"code": "3"}), call("good", "echo", {"text": "x"})],
            [call("never", "echo", {"text": "x"})],
            name="groups",
        ),
        ECHO,
        GATE,
    )
    ended = run(manifest)
    assert phases(ended) == {"all[0].bad": "Failed", "all[0].good": "Succeeded", "all": "Failed"}
    assert node(ended, "all").message == "failed: bad"
    assert (ended.exit_code, ended.failed) == (3, node(ended, "all[0].bad"))


def test_steps_fan_out_and_gather(run: Start):
    manifest = workflow(
        steps(
            [call("each", "echo", {"text": "{{item}}"}, withParam='["a", "b"]', when="{{item}} != c")],
            [call("sum", "echo", {"text": "{{steps.each.outputs.parameters.text}}"})],
            [call("none", "echo", {"text": "{{item}}"}, withParam="[]")],
            outputs={"parameters": [hoisted("text", "steps.sum")]},
        ),
        ECHO,
    )
    ended = run(manifest)
    assert ended.outputs == {"text": '["a","b"]'}
    assert phases(ended)["[2].none"] == "Skipped"


def test_a_step_that_cannot_be_given_its_inputs_is_an_error_and_the_template_has_failed(run: Start):
    manifest = workflow(
        steps(
            [call("skipped", "echo", {"text": "x"}, when="1 == 2")],
            [call("reads", "echo", {"text": "{{steps.skipped.outputs.parameters.text}}"})],
        ),
        ECHO,
    )
    ended = run(manifest)
    assert phases(ended) == {"[0].skipped": "Skipped", "[1].reads": "Error"}
    assert (ended.succeeded, ended.exit_code, ended.failed) == (False, 2, node(ended, "[1].reads"))


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ([[call("a", "ecoh")]], ("main/a", "calls 'ecoh', which is no template")),
        ([[call("a", "echo")]], ("main/a", "input 'text' of 'echo' is not given")),
        (
            [[call("a", "echo", {"text": "1"}), call("b", "echo", {"text": "{{steps.a.outputs.parameters.text}}"})]],
            ("main/b/text", "reads {{steps.a.outputs.parameters.text}} and does not wait for 'a'"),
        ),
        (
            [[call("a", "echo", {"text": "1"})], [call("b", "echo", {"text": "{{steps.a.outputs.parameters.txet}}"})]],
            ("main/b/text", "{{steps.a.outputs.parameters.txet}}: 'echo' has no such output"),
        ),
        (
            [[call("a", "echo", {"text": "1"})], [call("b", "echo", {"text": "{{tasks.a.outputs.parameters.text}}"})]],
            ("main/b/text", "{{tasks.a.outputs.parameters.text}} resolves to nothing"),
        ),
        (
            [[call("a", "echo", {"text": "1"})], [call("a", "echo", {"text": "1"})]],
            ("main/a", "two calls are named 'a'"),
        ),
    ],
)
def test_references_between_steps_are_followed_before_anything_runs(
    run: Start, groups: list[list[Manifest]], problem: tuple[str, str]
):
    manifest = workflow(steps(*groups), ECHO)
    assert problem in [(found.where, found.what) for found in lint(manifest)]
    with pytest.raises(BadInput):
        run(manifest)


def test_a_step_does_not_depend(run: Start):
    with pytest.raises(BadInput, match=r"uses depends \(of a step\)"):
        run(workflow(steps([call("a", "echo", {"text": "1"}, depends="b.Succeeded")]), ECHO))


# -- templateRef -------------------------------------------------------------------------------------------------------


@pytest.fixture
def other() -> Manifest:
    """A document with a template `twice` of its own `echo`, a mutex and an exit handler that nobody runs."""
    twice = dag(
        call("once", "echo", {"text": "{{inputs.parameters.text}} of {{workflow.parameters.who}}"}),
        call("again", "echo", {"text": "{{tasks.once.outputs.parameters.text}}!"}, depends="once.Succeeded"),
        name="twice",
        inputs=("text",),
        outputs={"parameters": [hoisted("text", "tasks.again")]},
    )
    unused = dag(call("a", "echo", {"text": "x"}), name="unused")
    return workflow(unused, twice, ECHO, name="lab-other", parameters=("who",), onExit="unused")


def referring(template: str = "twice", document: str = "lab-other", **arguments: str) -> Manifest:
    """Its own `echo` is another template than the one that `twice` calls."""
    return workflow(
        dag(
            call("far", {"name": document, "template": template}, arguments or {"text": "word"}),
            call("near", "echo", {"code": "0"}, depends="far.Succeeded"),
            outputs={"parameters": [hoisted("text", "tasks.far")]},
        ),
        GATE | {"name": "echo"},
        parameters=("who",),
    )


@pytest.mark.parametrize("mode", ["in this process", "in two workers"])
def test_a_template_of_another_document_runs_with_its_own_templates_and_the_caller_s_parameters(
    run: Start, other: Manifest, mode: str
):
    ended = run(referring(), how=MODES[mode], library={"lab-other": other}, who="the caller")
    assert ended.outputs == {"text": "word of the caller!"}
    assert [(n.name, n.template) for n in ended.nodes] == [
        ("far.once", "echo"),
        ("far.again", "echo"),
        ("far", "lab-other/twice"),
        ("near", "echo"),
    ]
    assert node(ended, "near").outputs == {"report": "fine"}


def test_steps_refer_too_and_a_document_may_refer_to_itself(run: Start):
    manifest = workflow(
        steps([call("a", {"name": "lab-made", "template": "echo"}, {"text": "x"})]), ECHO, name="lab-made"
    )
    assert run(manifest).succeeded


@pytest.mark.parametrize(
    ("manifest", "sentence", "hint"),
    [
        (
            referring(document="lab-otter"),
            "calls a template of 'lab-otter', which is no WorkflowTemplate",
            "'lab-other'",
        ),
        (referring("twcie"), "calls 'twcie', which is no template of 'lab-other'", "did you mean 'twice'?"),
        (referring(txet="x"), "'twice' has no input 'txet'", "did you mean 'text'?"),
    ],
)
def test_a_reference_to_what_is_not_there_names_the_nearest(
    run: Start, other: Manifest, manifest: Manifest, sentence: str, hint: str
):
    with pytest.raises(BadInput, match=sentence) as error:
        run(manifest, library={"lab-other": other}, who="x")
    assert hint in error.value.hint


def test_a_document_that_is_referred_to_is_held_to_the_same_subset(run: Start, other: Manifest):
    other["spec"]["hooks"] = {}
    with pytest.raises(BadInput, match="workflow 'lab-other' uses hooks"):
        run(referring(), library={"lab-other": other}, who="x")
    assert run(workflow(dag(call("a", "echo", {"text": "x"})), ECHO), library={"lab-other": other}).succeeded


def test_a_template_reads_no_parameter_that_the_caller_does_not_have(run: Start, other: Manifest):
    manifest = referring()
    manifest["spec"]["arguments"]["parameters"] = []
    with pytest.raises(BadInput, match=r"lab-other/twice, which reads {{workflow\.parameters\.who}}"):
        run(manifest, library={"lab-other": other})


def test_a_task_calls_one_template(run: Start, other: Manifest):
    manifest = referring()
    manifest["spec"]["templates"][0]["dag"]["tasks"][0]["template"] = "echo"
    with pytest.raises(BadInput, match="a template and a templateRef in 'far'"):
        run(manifest, library={"lab-other": other}, who="x")


def test_the_library_is_what_is_committed_and_read_only_if_it_is_referred_to(tmp_path: Path, other: Manifest):
    for document in (other, referring()):
        folder = tmp_path / "apps/base/workflows" / document["metadata"]["name"].removeprefix("lab-")
        folder.mkdir(parents=True)
        (folder / "workflowtemplate.yaml").write_text(yaml.safe_dump(document))
    assert set(load_library(tmp_path, load_template(tmp_path, "lab-made"))) == {"lab-other", "lab-made"}
    assert load_library(tmp_path, load_template(tmp_path, "other")) == {}

"""Every reference of a WorkflowTemplate is followed: to templates, here and elsewhere, arguments, outputs, and tags."""

from typing import Any

import pytest

from pipelines._checks.lint import lint
from tests.pipelines.checking import (
    GATED,
    NUMBERS,
    Manifest,
    check_after,
    findings_after,
    laboratory_documents,
    task_of,
    template_of,
)


def argument(document: Manifest, name: str) -> Manifest:
    return next(p for p in task_of(document, "main", "each")["arguments"]["parameters"] if p["name"] == name)


def label(value: str) -> Any:
    return lambda document: argument(document, "label").update(value=value)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param(
            lambda d: d["spec"].update(entrypoint="mian"),
            ("spec.entrypoint", "entrypoint 'mian' is no template"),
            id="entrypoint",
        ),
        pytest.param(
            lambda d: task_of(d, "each", "double").update(template="dubble"),
            ("each/double", "calls 'dubble', which is no template"),
            id="template",
        ),
        pytest.param(
            lambda d: argument(d, "label").update(name="lable"),
            ("main/each/lable", "'each' has no input 'lable'"),
            id="argument",
        ),
        pytest.param(
            lambda d: task_of(d, "main", "each")["arguments"]["parameters"].append({"name": "n", "value": "1"}),
            ("main/each/n", "argument 'n' is given twice"),
            id="argument twice",
        ),
        pytest.param(
            label("{{inputs.parameters.nothing}}"),
            ("main/each/label", "{{inputs.parameters.nothing}} resolves to nothing"),
            id="input",
        ),
        pytest.param(
            label("{{workflow.parameters.cuont}}"),
            ("main/each/label", "{{workflow.parameters.cuont}} resolves to nothing"),
            id="workflow parameter",
        ),
        pytest.param(
            label("{{tasks.list.outputs.parameters.pears}}"),
            ("main/each/label", "{{tasks.list.outputs.parameters.pears}}: 'list-numbers' has no such output"),
            id="output",
        ),
        pytest.param(
            label("{{tasks.sum.outputs.parameters.total}}"),
            ("main/each/label", "reads {{tasks.sum.outputs.parameters.total}} and does not wait for 'sum'"),
            id="output of a later task",
        ),
        pytest.param(
            label("{{tasks.lits.status}}"), ("main/each/label", "{{tasks.lits.status}}: 'lits' is no task"), id="task"
        ),
        pytest.param(
            lambda d: task_of(d, "main", "each").update(withParam="{{item}}"),
            ("main/each", "{{item}} resolves to nothing"),
            id="item outside",
        ),
        pytest.param(
            lambda d: task_of(d, "main", "each").update(depends="list.Succeeded && nobody.Succeeded"),
            ("main/each", "depends on 'nobody', which is no task"),
            id="depends",
        ),
        pytest.param(
            lambda d: task_of(d, "main", "each").update(depends="list.Succeded"),
            ("main/each", "'Succeded' is no task result"),
            id="result",
        ),
        pytest.param(
            lambda d: task_of(d, "main", "each").update(depends="list.Succeeded &&"),
            ("main/each", "depends: 'list.Succeeded &&': a term is missing"),
            id="unreadable",
        ),
        pytest.param(
            lambda d: d["spec"]["arguments"]["parameters"].append({"name": "refuse", "value": "1"}),
            ("spec.arguments.parameters.refuse", "two arguments are called 'refuse'"),
            id="workflow argument twice",
        ),
        pytest.param(
            lambda d: template_of(d, "double")["inputs"]["parameters"].append({"name": "n"}),
            ("double/n", "two inputs are called 'n'"),
            id="input twice",
        ),
        pytest.param(
            lambda d: template_of(d, "main")["outputs"]["parameters"].append(
                template_of(d, "main")["outputs"]["parameters"][0]
            ),
            ("main/total", "two outputs are called 'total'"),
            id="output twice",
        ),
        pytest.param(
            lambda d: d["spec"]["arguments"]["parameters"].append({"name": "a.b", "value": "1"}),
            ("spec.arguments.parameters.a.b", "'a.b' is no name of a parameter"),
            id="name of an argument",
        ),
        pytest.param(
            lambda d: template_of(d, "double")["outputs"]["parameters"][0].update(name="a b"),
            ("double/a b", "'a b' is no name of a parameter"),
            id="name of an output",
        ),
        pytest.param(
            lambda d: template_of(d, "double").update(name="dou_ble"),
            ("dou_ble", "'dou_ble' is no name of a template"),
            id="name of a template",
        ),
        pytest.param(
            lambda d: template_of(d, "double").update(name="d" * 129),
            ("d" * 129, f"{'d' * 129!r} is no name of a template"),
            id="long name of a template",
        ),
        pytest.param(
            lambda d: task_of(d, "main", "sum").update(name="-sum"),
            ("main/-sum", "'-sum' is no name of a task or step"),
            id="name of a task",
        ),
        pytest.param(
            lambda d: task_of(d, "main", "sum").update(name="1sum"),
            ("main/1sum", "task '1sum' begins with a digit, which Argo refuses in a DAG that has depends"),
            id="task that begins with a digit",
        ),
        pytest.param(
            lambda d: d["spec"]["arguments"]["parameters"][1].update(enum=["1", "2"]),
            ("spec.arguments.parameters.refuse", "'0' is not in the enum of 'refuse'"),
            id="value outside of the enum",
        ),
        pytest.param(
            lambda d: template_of(d, "double")["inputs"]["parameters"][0].update(enum=["1"], default="2"),
            ("double/n", "'2' is not in the enum of 'n'"),
            id="default outside of the enum",
        ),
        pytest.param(
            lambda d: (
                template_of(d, "each")["inputs"]["parameters"][1].update(enum=["a", "b"]),
                argument(d, "label").update(value="c"),
            ),
            ("main/each/label", "'c' is not in the enum of 'label'"),
            id="argument outside of the enum",
        ),
        pytest.param(
            lambda d: d["spec"]["arguments"]["parameters"][0].update(enum=[]),
            ("spec.arguments.parameters.count", "the enum of 'count' is empty: no value would do"),
            id="empty enum",
        ),
        pytest.param(
            lambda d: task_of(d, "main", "each").update(withParam='[{"left": 1, "label": "a"}, {"left": 2}]'),
            ("main/each/label", "{{item.label}} resolves to nothing"),
            id="item without the field",
        ),
        pytest.param(
            lambda d: task_of(d, "main", "each").update(withParam="1, 2"),
            ("main/each", "withParam is not JSON (Extra data: line 1 column 2 (char 1)): '1, 2'"),
            id="items that are no list",
        ),
        pytest.param(
            lambda d: task_of(d, "main", "sum").update(name="list"),
            ("main/list", "two calls are named 'list'"),
            id="two tasks",
        ),
        pytest.param(
            lambda d: d["spec"]["templates"].append({**template_of(d, "each")}),
            ("each", "two templates are called 'each'"),
            id="two templates",
        ),
        pytest.param(
            lambda d: template_of(d, "main")["outputs"]["parameters"][0]["valueFrom"].update(
                parameter="{{tasks.sum.outputs.parameters.sum}}"
            ),
            ("main/total", "{{tasks.sum.outputs.parameters.sum}}: 'sum-up' has no such output"),
            id="hoisted output",
        ),
        pytest.param(
            lambda d: d["spec"]["arguments"]["parameters"].pop(0),
            ("main", "input 'count' of the entrypoint template is given by nobody"),
            id="entrypoint input",
        ),
        pytest.param(
            lambda d: template_of(d, "each")["synchronization"]["mutexes"][0].update(
                name="{{inputs.parameters.lable}}"
            ),
            ("each/{{inputs.parameters.lable}}", "{{inputs.parameters.lable}} resolves to nothing"),
            id="lock",
        ),
        pytest.param(
            lambda d: d["spec"].update(podMetadata={"labels": {"n": "{{workflow.parameters.coutn}}"}}),
            ("spec.podMetadata.labels.n", "{{workflow.parameters.coutn}} resolves to nothing"),
            id="label",
        ),
    ],
)
def test_a_reference_that_does_not_hold_is_found(change, found):
    assert found in check_after(change)


def test_all_arguments_are_a_tag_only_where_there_are_some():
    def tell_all(document: Manifest) -> None:
        task_of(document, "exit", "note")["arguments"]["parameters"][0]["value"] = "{{workflow.parameters}}"
        document["spec"]["podMetadata"] = {"annotations": {"given": "{{workflow.parameters}}"}}

    def without_arguments(document: Manifest) -> None:
        tell_all(document)
        document["spec"].pop("arguments")

    assert check_after(tell_all, GATED) == []
    found = check_after(without_arguments, GATED)
    what = "{{workflow.parameters}} resolves to nothing"
    assert [place for place, told in found if told == what] == [
        "spec.podMetadata.annotations.given",
        "exit/note/status",
    ]


def test_an_argument_that_is_a_tag_may_be_anything_of_an_enum():
    assert check_after(lambda d: template_of(d, "each")["inputs"]["parameters"][0].update(enum=["1", "2"])) == []


def test_items_that_are_written_out_have_the_fields_that_are_read():
    items = '[{"left": 1, "label": "a"}, {"left": 2, "label": "b"}]'
    assert check_after(lambda d: task_of(d, "main", "each").update(withParam=items)) == []


@pytest.mark.parametrize(
    ("mutex", "waits"),
    [("lab-a", True), ("lab-", False), ("numbers", False), ("lab-{{workflow.parameters.count}}", False)],
)
def test_a_run_does_not_wait_for_a_mutex_that_it_holds(mutex: str, waits: bool):
    """The template `each` holds lab-{{inputs.parameters.label}}."""
    found = check_after(lambda d: d["spec"].update(synchronization={"mutexes": [{"name": mutex}]}))
    what = f"the workflow holds the mutex {mutex!r}, and each below it would wait for that for ever"
    assert found == ([(f"spec.synchronization.mutexes.{mutex}", what)] if waits else [])


def test_a_template_does_not_wait_for_a_mutex_that_its_caller_holds():
    lock = {"mutexes": [{"name": "lab-x"}]}
    found = check_after(lambda d: template_of(d, "main").update(synchronization=lock))
    assert found == [("main/lab-x", "main holds the mutex 'lab-x', and each below it would wait for that for ever")]


def test_a_circle_in_depends_is_found():
    found = check_after(lambda d: task_of(d, "main", "list").update(depends="sum.Succeeded"))
    assert ("main/list", "task 'list' waits for itself") in found


def test_an_output_that_goes_by_another_name_is_suggested():
    found = findings_after(label("{{tasks.list.outputs.parameters.pears}}"))
    assert found[0].hint.startswith("did you mean 'tasks.list.outputs.parameters.pairs'")


# -- what has a value only now and then --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("{{workflow.status}}", "{{workflow.status}} has a value only when the workflow has ended"),
        ("{{workflow.failures}}", "{{workflow.failures}} has a value only when the workflow has ended"),
        (
            "{{workflow.scheduledTime}}",
            "{{workflow.scheduledTime}} stays as it is written when somebody submits this by hand",
        ),
        (
            "{{workflow.creationTimestamp}}",
            "{{workflow.creationTimestamp}} is another time whenever the workflow is submitted again",
        ),
        (
            "{{workflow.creationTimestamp.Y}}",
            "{{workflow.creationTimestamp.Y}} is another time whenever the workflow is submitted again",
        ),
    ],
)
def test_a_tag_that_has_no_value_in_a_template_is_found(value: str, what: str):
    assert check_after(label(value)) == [("main/each/label", what)]


def test_an_argument_of_a_template_is_not_the_scheduled_time():
    found = check_after(lambda d: d["spec"]["arguments"]["parameters"][0].update(value="{{workflow.scheduledTime}}"))
    assert found == [
        (
            "spec.arguments.parameters.count.value",
            "{{workflow.scheduledTime}} stays as it is written when somebody submits this by hand",
        )
    ]


def test_a_condition_that_reads_the_clock_is_found():
    found = check_after(lambda d: task_of(d, "main", "sum").update(when="now() > 5"))
    assert ("main/sum", "reads the clock with now(): a run that is repeated would mean another window") in found


@pytest.mark.parametrize(
    ("when", "found"),
    [
        (
            "{{inputs.parameters.refuse}} == a-b",
            "when: put quotes around a-b, of which Argo would make something else",
        ),
        ("v-{{inputs.parameters.refuse}} == b", "when: put quotes around the tag"),
        (
            "{{inputs.parameters.refuse}} == '2018-07-01'",
            "when: '2018-07-01': Argo compares it as a time, not as a text",
        ),
        ("{{inputs.parameters.refuse}} ==", "'{{inputs.parameters.refuse}} ==': a term is missing"),
        ("a < 1", "'a < 1': 'a' < 1.0 has no answer"),
    ],
)
def test_a_condition_that_argo_reads_otherwise_is_found(when: str, found: str):
    [(where, what)] = check_after(lambda d: task_of(d, "main", "sum").update(when=when))
    assert where == "main/sum"
    assert what.startswith(found)


@pytest.mark.parametrize(
    "when", ["{{inputs.parameters.refuse}} == required", "n{{inputs.parameters.refuse}} == 'a b' && !(1 < 2)"]
)
def test_a_condition_that_argo_reads_as_it_is_written_is_none(when: str):
    assert check_after(lambda d: task_of(d, "main", "sum").update(when=when)) == []


def test_metrics_have_tags_of_their_own():
    gauge = {"name": "rows", "help": "rows", "gauge": {"realtime": False, "value": "{{outputs.parameters.doubled}}"}}

    def measure(document: Manifest) -> None:
        template_of(document, "double")["metrics"] = {"prometheus": [gauge, {**gauge, "when": "{{status}} == Failed"}]}
        over_all = {
            "name": "seconds",
            "help": "seconds",
            "gauge": {"realtime": True, "value": "{{workflow.duration}}"},
        }
        document["spec"]["metrics"] = {"prometheus": [over_all]}

    assert check_after(measure) == []
    gauge["gauge"]["value"] = "{{outputs.parameters.dubbled}}"
    assert {what for _, what in check_after(measure)} == {"{{outputs.parameters.dubbled}} resolves to nothing"}


def test_the_status_is_not_known_where_the_run_itself_passes():
    def also_on_the_way(document: Manifest) -> None:
        template_of(document, "main")["dag"]["tasks"].append({"name": "early", "template": "exit"})

    what = "{{workflow.status}} has a value only when the workflow has ended"
    assert ("exit/note/status", what) in check_after(also_on_the_way, GATED)


def test_an_exit_handler_with_inputs_is_found_because_argo_gives_it_no_defaults():
    [finding] = findings_after(
        lambda d: template_of(d, "exit").update(inputs={"parameters": [{"name": "broken"}]}), GATED
    )
    assert finding.where == "exit"
    assert finding.what.startswith("the onExit template takes the input 'broken'")
    assert "{{workflow.parameters.broken}}" in finding.hint


# -- other documents ---------------------------------------------------------------------------------------------------


def call_say(reference: Manifest, **arguments: str) -> Any:
    """Let the task `sum` of `numbers` call a template of another document."""

    def change(document: Manifest) -> None:
        task = task_of(document, "main", "sum")
        task.pop("template")
        task["templateRef"] = reference
        task["arguments"] = {"parameters": [{"name": name, "value": value} for name, value in arguments.items()]}
        template_of(document, "main").pop("outputs")

    return change


SAY = {"name": "lab-say", "template": "main"}


def test_a_template_of_another_document_is_called_by_reference():
    documents = laboratory_documents()
    manifest, say = documents[NUMBERS], documents["apps/base/workflows/say/workflowtemplate.yaml"]
    call_say(SAY, text="a", loud="false", again="no")(manifest)
    assert list(lint(manifest, {"lab-say": say})) == []
    [alone] = lint(manifest)
    assert alone.what == "calls a template of 'lab-say', which is no WorkflowTemplate that is rendered"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            call_say({"name": "lab-sya", "template": "main"}),
            "calls a template of 'lab-sya', which is no WorkflowTemplate that is rendered",
        ),
        (call_say({"name": "lab-say", "template": "mian"}), "calls 'mian', which is no template of 'lab-say'"),
        (call_say({**SAY, "clusterScope": True}), "calls a ClusterWorkflowTemplate, and none is rendered"),
        (call_say(SAY, text="a", loud="false"), "input 'again' of 'main' is not given"),
        (call_say(SAY, text="a", loud="false", again="no", agian="no"), "'main' has no input 'agian'"),
    ],
)
def test_a_reference_to_another_document_that_does_not_hold_is_found(change, what: str):
    assert what in [found for _, found in check_after(change)]


def test_a_template_called_by_reference_reads_the_arguments_of_its_caller():
    found = check_after(call_say({"name": "lab-gated", "template": "exit"}))
    what = ("reaches lab-gated/exit, which reads {{workflow.parameters.broken}}: that is an argument of the caller's",)
    assert ("main/sum", *what) in found


def test_a_template_called_by_reference_reads_all_arguments_only_of_a_caller_that_has_some():
    documents = laboratory_documents()
    manifest, say = documents[NUMBERS], documents["apps/base/workflows/say/workflowtemplate.yaml"]
    call_say(SAY, text="a", loud="false", again="no")(manifest)
    task_of(say, "main", "once")["arguments"]["parameters"][0]["value"] = "{{workflow.parameters}}"
    assert list(lint(manifest, {"lab-say": say})) == []
    manifest["spec"].pop("arguments")
    what = "reaches lab-say/main, which reads {{workflow.parameters}}: that is an argument of the caller's"
    assert what in [problem.what for problem in lint(manifest, {"lab-say": say})]


def test_an_output_of_a_template_of_another_document_is_followed():
    def change(document: Manifest) -> None:
        call_say(SAY, text="a", loud="false", again="no")(document)
        value = {"parameter": "{{tasks.sum.outputs.parameters.txet}}"}
        template_of(document, "main")["outputs"] = {"parameters": [{"name": "text", "valueFrom": value}]}

    [finding] = [f for f in findings_after(change) if "subset" not in f.what]
    assert finding.what == "{{tasks.sum.outputs.parameters.txet}}: 'main' has no such output"
    assert finding.hint == "did you mean 'tasks.sum.outputs.parameters.text'?"


# -- steps and approvals -----------------------------------------------------------------------------------------------


def promote(decision: str = "{{steps.approve.outputs.parameters.decision}}") -> Manifest:
    """A document with a steps template: echo, ask, echo the answer."""
    asked = {"name": "decision", "enum": ["yes", "no"], "default": "no"}
    document = laboratory_documents()["apps/base/workflows/say/workflowtemplate.yaml"]
    echo = template_of(document, "echo")
    document["spec"].pop("onExit")
    document["spec"]["templates"] = [
        echo,
        {
            "name": "approve",
            "suspend": {},
            "inputs": {"parameters": [asked]},
            "outputs": {"parameters": [{"name": "decision", "valueFrom": {"supplied": {}}}]},
        },
        {
            "name": "main",
            "steps": [
                [{"name": "first", "template": "echo", "arguments": {"parameters": [{"name": "text", "value": "a"}]}}],
                [{"name": "approve", "template": "approve"}],
                [
                    {
                        "name": "last",
                        "template": "echo",
                        "arguments": {"parameters": [{"name": "text", "value": decision}]},
                    }
                ],
            ],
        },
    ]
    return document


def told(document: Manifest) -> list[tuple[str, str]]:
    return [(problem.where, problem.what) for problem in lint(document)]


def test_a_steps_template_and_an_approval_hold():
    assert told(promote()) == []


@pytest.mark.parametrize(
    ("decision", "what"),
    [
        (
            "{{steps.approve.outputs.parameters.desicion}}",
            "{{steps.approve.outputs.parameters.desicion}}: 'approve' has no such output",
        ),
        ("{{steps.aprove.status}}", "{{steps.aprove.status}}: 'aprove' is no task"),
        ("{{steps.last.status}}", "reads {{steps.last.status}} and does not wait for 'last'"),
        ("{{tasks.first.status}}", "{{tasks.first.status}} resolves to nothing"),
    ],
)
def test_a_reference_between_steps_that_does_not_hold_is_found(decision: str, what: str):
    assert told(promote(decision)) == [("main/last/text", what)]


def test_steps_of_one_group_do_not_wait_for_each_other():
    document = promote()
    groups = template_of(document, "main")["steps"]
    groups[1] += groups.pop()
    [(where, what)] = told(document)
    assert (where, what) == (
        "main/last/text",
        "reads {{steps.approve.outputs.parameters.decision}} and does not wait for 'approve'",
    )


def test_an_approval_asks_for_what_it_hands_on_and_does_not_answer_itself():
    document = promote()
    approve = template_of(document, "approve")
    approve["suspend"] = {"duration": "3d"}
    approve["inputs"]["parameters"][0]["name"] = "descision"
    approve["outputs"]["parameters"][0]["valueFrom"] = {"parameter": "yes"}
    assert told(document) == [
        ("approve/decision", "nobody gives this output a value"),
        ("approve/decision", "nobody is asked for 'decision'"),
        ("approve", "the approval resumes by itself, without an answer"),
    ]

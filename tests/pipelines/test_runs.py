"""`lockstep runs`, and watching: what a workflow in a cluster came to, read off a stub of Argo's server."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from argo_stub import ArgoStub, Document, node, workflow

from pipelines._server import follow
from pipelines.cli import main
from pipelines.render import write

pytestmark = pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # Hera's service calls it

Told = Callable[[], tuple[str, str]]
RUN = "lab-numbers-1a2b3c4d"
START, END = "2026-01-02T03:00:00Z", "2026-01-02T03:01:05Z"


@pytest.fixture(autouse=True)
def manifests(tmp_path: Path) -> Path:
    write(tmp_path / "manifests", "lab_pipelines")
    return tmp_path / "manifests"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL", 0.01)


def has(phase: str, *nodes: tuple[str, Document], message: str = "") -> Callable[[Document], None]:
    """The workflow comes to this phase, with these nodes changed or new."""

    def change(document: Document) -> None:
        ended = END if phase in ("Succeeded", "Failed", "Error") else None
        status = document["status"]
        status |= {"phase": phase, "startedAt": START, "finishedAt": ended}
        status |= {"message": message} if message else {}
        status["nodes"] = status.get("nodes", {}) | dict(nodes)
        document["metadata"]["labels"]["workflows.argoproj.io/phase"] = phase

    return change


def parameters(**values: str) -> Document:
    return {"outputs": {"parameters": [{"name": name, "value": value} for name, value in values.items()]}}


def coded(code: int) -> Document:
    return {"outputs": {"exitCode": str(code)}, "message": f"Error (exit code {code})"}


@pytest.fixture
def run(argo: ArgoStub) -> Document:
    argo.workflows[RUN] = workflow(RUN, "lab-numbers", {"count": "2"})
    return argo.workflows[RUN]


def test_watching_tells_of_each_node_as_it_ends_and_of_the_outputs(argo: ArgoStub, told: Told):
    one_by_one = [
        lambda _: None,
        has("Running", node("RUN", "Running", 0, "DAG"), node("RUN.list", "Running", 1)),
        has("Running", node("RUN.list", "Succeeded", 1), node("RUN.each", "Running", 7, "TaskGroup")),
        has("Running", node("RUN.each(0:a).double", "Succeeded", 8), node("RUN.each(0:a)", "Succeeded", 8, "DAG")),
        has("Running", node("RUN.each", "Succeeded", 7, "TaskGroup"), node("RUN.extra", "Skipped", 20, "Skipped")),
        has(
            "Succeeded", node("RUN.sum", "Succeeded", 30), node("RUN", "Succeeded", 0, "DAG", **parameters(total="6"))
        ),
    ]

    def named(step: Callable[[Document], None]) -> Callable[[Document], None]:
        def change(document: Document) -> None:
            step(document)
            status, name = document["status"], document["metadata"]["name"]
            status["nodes"] = json.loads(json.dumps(status.get("nodes", {})).replace("RUN", name))

        return change

    argo.steps = [named(step) for step in one_by_one]
    assert main(["submit", "numbers", "-p", "count=2", "--watch"]) == 0
    out, err = told()
    [name] = argo.workflows
    assert out.splitlines() == [
        f"{name} is submitted: {argo.url}/workflows/features/{name}",
        "Succeeded     5.0 s  list",
        "Succeeded     5.0 s  each(0:a).double",
        "Skipped       5.0 s  extra",
        "Succeeded     5.0 s  sum",
        "total = 6",
        f"{name} succeeded",
    ]
    assert err == ""
    assert len(argo.posted) == 1


@pytest.mark.parametrize(
    ("codes", "expected"), [([3], 3), ([2], 2), ([1], 1), ([137], 1), ([1, 2], 2), ([2, 3, 1], 3), ([], 1)]
)
def test_a_failed_run_ends_as_its_nodes_did(
    argo: ArgoStub, run: Document, told: Told, codes: list[int], expected: int
):
    nodes = [node(f"{RUN}.gate{i}", "Failed", i, **coded(code)) for i, code in enumerate(codes)]
    has("Failed", *nodes, node(RUN, "Failed", 0, "DAG", message="child 'x' failed"), message="the gate says no")(run)
    assert main(["runs", RUN, "--watch"]) == expected
    out, err = told()
    assert len(out.splitlines()) == len(codes)
    where, code, why = ("gate0", codes[0], f"Error (exit code {codes[0]})") if codes else (RUN, 1, "the gate says no")
    assert err == (
        f"{RUN} failed at {where}, exit code {code}: {why}\nlook at it: {argo.url}/workflows/features/{RUN}\n"
    )


def test_the_attempts_at_a_node_that_came_right_do_not_count(argo: ArgoStub, run: Document, told: Told):
    tried = f"{RUN}.flaky"
    again = node(tried, "Succeeded", 0, "Retry", children=[f"id-{tried}(0)", f"id-{tried}(1)", f"id-{RUN}.next"])
    attempts = [
        node(f"{tried}(0)", "Failed", 0, nodeFlag={"retried": True}, **coded(2)),
        node(f"{tried}(1)", "Succeeded", 0, nodeFlag={"retried": True}),
    ]
    has("Failed", *attempts, again, node(f"{RUN}.next", "Failed", 10, **coded(1)))(run)
    assert main(["runs", RUN, "--watch"]) == 1
    out, err = told()
    assert [line.split()[3] for line in out.splitlines()] == ["flaky(0)", "flaky", "next"]
    assert err.startswith(f"{RUN} failed at next, exit code 1: ")


def test_a_node_that_never_came_right_ends_as_its_last_attempt(argo: ArgoStub, run: Document, told: Told):
    tried = f"{RUN}.flaky"
    several = [node(f"{tried}({i})", "Failed", i, **coded(1)) for i in range(11)]
    several[10] = node(f"{tried}(10)", "Failed", 20, **coded(3))
    children = [key for key, _ in reversed(several)]
    has("Failed", *several, node(tried, "Failed", 0, "Retry", children=children, message="No more retries left"))(run)
    assert main(["runs", RUN, "--watch", "--json"]) == 3
    ended = json.loads(told()[0])
    assert (ended["name"], ended["succeeded"], ended["exit_code"]) == (RUN, False, 3)
    assert (ended["failed"]["name"], ended["failed"]["exit_code"]) == ("flaky", 3)
    assert len(ended["nodes"]) == 12


def test_a_failure_that_was_made_up_for_succeeds(argo: ArgoStub, run: Document, told: Told):
    has("Succeeded", node(f"{RUN}.gate", "Failed", 0, **coded(3)))(run)
    assert main(["runs", RUN, "--watch"]) == 0
    assert told()[0].endswith(f"{RUN} succeeded\n")


def test_a_fan_out_that_is_in_error_itself_is_told(argo: ArgoStub, run: Document, told: Told):
    dag = node(RUN, "Error", 0, "DAG", message="child 'each' errored")
    has("Error", node(f"{RUN}.each", "Error", 0, "TaskGroup", message="withParam: no list"), dag)(run)
    assert main(["runs", RUN, "--watch"]) == 1
    assert "failed at each: withParam: no list" in told()[1]


ASKED = {
    "inputs": {"parameters": [{"name": "decision", "value": "no", "default": "no", "enum": ["no", "yes"]}]},
    "outputs": {"parameters": [{"name": "decision", "valueFrom": {"supplied": {}}}]},
}


def how_to_approve(argo: ArgoStub, selector: str = "displayName=approve", where: str = "approve") -> list[str]:
    return [
        (
            f"Hint: {where} waits for somebody who may `update` workflows (decision: no or yes): "
            f"at {argo.url}/workflows/features/{RUN}, or"
        ),
        f"  argo node set {RUN} -n features --output-parameter decision=VALUE --node-field-selector {selector}",
        f"  argo resume {RUN} -n features",
    ]


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_node_that_waits_for_a_person_is_told_once_and_again_when_it_ends(
    argo: ArgoStub, run: Document, told: Told, as_json: list[str]
):
    has("Running", node(f"{RUN}.approve", "Running", 1, "Suspend", **ASKED), node(f"{RUN}.other", "Running", 1))(run)
    argo.steps = [lambda _: None] * 3 + [has("Succeeded", node(f"{RUN}.approve", "Succeeded", 1, "Suspend"))]
    assert main(["runs", RUN, "--watch", *as_json]) == 0
    out, err = told()
    assert err.splitlines() == how_to_approve(argo)
    if as_json:
        assert json.loads(out)["succeeded"]
    else:
        assert out.splitlines() == [
            "Running       0.0 s  approve  (waits to be resumed)",
            "Succeeded     5.0 s  approve",
            f"{RUN} succeeded",
        ]


def test_a_run_that_waits_says_at_which_node_and_how_it_goes_on(argo: ArgoStub, run: Document, told: Told):
    has("Running", node(f"{RUN}.approve", "Running", 1, "Suspend", **ASKED))(run)
    assert main(["runs", RUN]) == 0
    assert told()[0].splitlines()[-3:] == how_to_approve(argo)


def test_of_nodes_that_wait_each_is_named_as_argo_finds_it_alone(argo: ArgoStub, run: Document, told: Told):
    key, deep = node(f"{RUN}.each(0:a.b).approve", "Running", 1, "Suspend", **ASKED)
    deep["id"] = key = f"{RUN}-1234"
    has("Running", (key, deep), node(f"{RUN}.pause", "Running", 2, "Suspend"))(run)
    assert main(["runs", RUN]) == 0
    assert told()[0].splitlines()[-5:] == [
        *how_to_approve(argo, f"id={RUN}-1234", "each(0:a.b).approve"),
        f"Hint: pause waits for somebody who may `update` workflows: at {argo.url}/workflows/features/{RUN}, or",
        f"  argo resume {RUN} -n features",
    ]


def test_an_answer_that_was_given_is_not_asked_for_again(argo: ArgoStub, run: Document, told: Told):
    answered = {"outputs": {"parameters": [{"name": "decision", "value": "yes"}]}}
    has("Running", node(f"{RUN}.approve", "Running", 1, "Suspend", **answered))(run)
    assert main(["runs", RUN]) == 0
    assert told()[0].splitlines()[-2:] == [
        f"Hint: approve waits for somebody who may `update` workflows: at {argo.url}/workflows/features/{RUN}, or",
        f"  argo resume {RUN} -n features",
    ]


@pytest.mark.parametrize("faults", [[503, 502, 429], ["cut", 503], [(200, b"<html>")]])
def test_a_server_that_is_away_for_a_while_is_waited_for(argo: ArgoStub, run: Document, told: Told, faults: list[Any]):
    has("Running")(run)
    argo.steps = [lambda _: None, has("Succeeded", node(f"{RUN}.one", "Succeeded", 1))]
    argo.faults["GET"] = [None, *faults]
    assert main(["runs", RUN, "--watch"]) == 0
    out, err = told()
    assert out == f"Succeeded     5.0 s  one\n{RUN} succeeded\n"
    assert err == f"{argo.url} does not answer; {RUN} goes on, and is looked for again\n"


def test_a_server_that_is_restarted_is_waited_for(applied, told: Told, monkeypatch: pytest.MonkeyPatch):
    stub = ArgoStub(templates=applied)
    stub.workflows[RUN] = workflow(RUN, "lab-numbers", {"count": "2"}, phase="Running", startedAt=START)
    ended: list[int] = []
    with stub:
        stub.settle(monkeypatch)
        watching = threading.Thread(target=lambda: ended.append(main(["runs", RUN, "--watch"])))
        watching.start()
        while len(stub.asked) < 3:
            time.sleep(0.005)
    time.sleep(0.1)
    assert ended == []
    with stub:
        has("Succeeded")(stub.workflows[RUN])
        watching.join(30)
    assert ended == [0]


def test_a_server_that_stays_away_ends_the_watching_as_transient(
    argo: ArgoStub, run: Document, told: Told, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(follow, "PATIENCE", 0.1)
    argo.faults["GET"] = [None, *[503] * 1_000]
    assert main(["runs", RUN, "--watch"]) == 1
    assert told()[1].endswith(
        f"error: lost sight of {RUN}: {argo.url} answers 503: so it is\n\n"
        f"Hint: it goes on: `lockstep runs {RUN} --watch`\n"
    )


def test_a_token_that_expires_meanwhile_says_how_to_go_on(argo: ArgoStub, run: Document, told: Told):
    argo.faults["GET"] = [None, None, 401]
    has("Running")(run)
    assert main(["runs", RUN, "--watch"]) == 2
    error = told()[1]
    assert f"error: lost sight of {RUN}: {argo.url} answers 401: so it is" in error
    assert f"Hint: it goes on: `lockstep runs {RUN} --watch`; the token is not taken (they expire)" in error


def test_a_workflow_that_is_deleted_meanwhile(argo: ArgoStub, run: Document, told: Told):
    argo.faults["GET"] = [None, 404]
    assert main(["runs", RUN, "--watch"]) == 2
    assert f"{RUN} was deleted while it was watched: how it ended is not known" in told()[1]


def test_ctrl_c_ends_the_watching_not_the_workflow(argo: ArgoStub, run: Document):
    has("Running")(run)
    command = [sys.executable, "-m", "pipelines", "runs", RUN, "--watch"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            end = time.monotonic() + 60
            while len(argo.asked) < 2:
                assert time.monotonic() < end
                time.sleep(0.05)
            started.send_signal(signal.SIGINT)
            out, err = started.communicate(timeout=20)
        finally:
            started.kill()
    assert (started.returncode, out) == (130, "")
    assert err == f"stopped watching; {RUN} goes on: `lockstep runs {RUN} --watch`\n"
    assert {one.method for one in argo.asked} == {"GET"}


@pytest.fixture
def several(argo: ArgoStub) -> None:
    """Runs of two of the project's workflows and of somebody else's, in no order."""
    for name, template, minute, status in (
        ("lab-say-2", "lab-say", 2, {"phase": "Running", "startedAt": "2026-01-02T03:02:00Z"}),
        ("lab-numbers-1767322860", "lab-numbers", 1, {"phase": "Succeeded", "startedAt": START, "finishedAt": END}),
        ("other-x", "other", 4, {"phase": "Failed"}),
        (
            "lab-say-3",
            "lab-say",
            3,
            {"phase": "Failed", "startedAt": START, "finishedAt": END, "message": "no\x1b[31m"},
        ),
        ("lab-say-5", "lab-say", 5, {}),
    ):
        made = workflow(name, template, {"text": f"{minute}\n" + "x" * 100}, **status)
        made["metadata"]["creationTimestamp"] = f"2026-01-02T03:{minute:02}:00Z"
        argo.workflows[name] = made


def test_runs_are_listed_those_that_began_last_first(argo: ArgoStub, several: None, told: Told):
    assert main(["runs"]) == 0
    lines = told()[0].splitlines()
    assert lines[0].split() == ["NAME", "PIPELINE", "PHASE", "STARTED", "TOOK", "PARAMETERS"]
    shown = f"text={'5 ' + 'x' * 60}"[:59] + "…"
    assert lines[1].split(maxsplit=4) == ["lab-say-5", "say", "Pending", "0:00:00", shown]
    assert lines[2].split()[:5] == ["lab-say-3", "say", "Failed", START, "0:01:05"]
    assert lines[3] == "    no [31m"
    assert [line.split()[:4] for line in lines[4:]] == [
        ["lab-say-2", "say", "Running", "2026-01-02T03:02:00Z"],
        ["lab-numbers-1767322860", "numbers", "Succeeded", START],
    ]
    [asked] = argo.asked
    assert asked.query["listOptions.labelSelector"] == (
        "workflows.argoproj.io/workflow-template in (lab-gated,lab-numbers,lab-say)"
    )


def test_runs_are_chosen_by_pipeline_phase_and_number(argo: ArgoStub, several: None, told: Told):
    def names(*args: str) -> list[str]:
        assert main(["runs", "--json", *args]) == 0
        return [run["name"] for run in json.loads(told()[0])]

    assert names("--pipeline", "numbers") == names("--pipeline", "lab-numbers") == ["lab-numbers-1767322860"]
    assert names("--phase", "failed") == ["lab-say-3"]
    assert names("--pipeline", "say", "--phase", "Running") == ["lab-say-2"]
    assert names("--phase", "Pending") == ["lab-say-5"]
    assert names("--limit", "3") == ["lab-say-5", "lab-say-3", "lab-say-2"]
    assert main(["runs", "--pipeline", "gated"]) == 0
    assert told()[0] == "no run of lab-gated in the namespace 'features'\n"


def test_what_waits_is_listed_however_much_has_started_since(argo: ArgoStub, several: None, told: Told):
    assert main(["runs", "--json", "--limit", "1"]) == 0
    assert [run["name"] for run in json.loads(told()[0])] == ["lab-say-5"]
    assert [one.query["listOptions.limit"] for one in argo.asked] == ["1", "1"]
    assert (
        argo.asked[1]
        .query["listOptions.labelSelector"]
        .endswith("workflows.argoproj.io/phase notin (Error,Failed,Running,Succeeded)")
    )


def test_a_list_for_scripts(argo: ArgoStub, several: None, told: Told):
    assert main(["runs", "--pipeline", "numbers", "--json"]) == 0
    assert json.loads(told()[0]) == [
        {
            "name": "lab-numbers-1767322860",
            "pipeline": "numbers",
            "phase": "Succeeded",
            "started": START,
            "seconds": 65.0,
            "parameters": {"text": "1\n" + "x" * 100},
            "message": "",
        }
    ]


def test_a_scheduled_run_is_shown_with_the_time_it_is_of(argo: ArgoStub, told: Told):
    tag = {"window_end": "{{workflow.scheduledTime}}", "text": "a"}
    scheduled, submitted = (workflow(f"lab-say-{i}", "lab-say", tag) for i in range(2))
    scheduled["metadata"]["annotations"] = {"workflows.argoproj.io/scheduled-time": "2018-06-01T12:04:00Z"}
    argo.workflows = {"lab-say-0": scheduled, "lab-say-1": submitted}
    assert main(["runs", "--json"]) == 0
    assert {run["name"]: run["parameters"] for run in json.loads(told()[0])} == {
        "lab-say-0": {"window_end": "2018-06-01T12:04:00Z", "text": "a"},
        "lab-say-1": tag,  # as a step gets it, too
    }
    assert main(["runs", "lab-say-0"]) == 0
    assert told()[0].startswith("window_end = 2018-06-01T12:04:00Z\n")


def test_one_run_is_shown_with_its_nodes(argo: ArgoStub, run: Document, told: Told):
    gone_on = [node(f"{RUN}.gate", "Failed", 0, **coded(3)), node(f"{RUN}.last", "Running", 6)]
    has("Running", *gone_on)(run)
    assert main(["runs", RUN]) == 0
    lines = told()[0].splitlines()
    assert lines[:3] == [
        "count = 2",
        "Failed        5.0 s  gate  (Error (exit code 3))  exit code 3",
        "Running       0.0 s  last",
    ]
    assert lines[3].startswith(f"{RUN} is Running, ")
    assert lines[4] == f"look at it: {argo.url}/workflows/features/{RUN}"
    assert main(["runs", RUN, "--json"]) == 0
    document = json.loads(told()[0])
    assert (document["phase"], document["pipeline"], [n["exit_code"] for n in document["nodes"]]) == (
        "Running",
        "numbers",
        [3, None],
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lab-numbers-1a2b3c4e", f"did you mean '{RUN}'?"),
        ("numbers", "that is a workflow; its runs: `lockstep runs --pipeline numbers`"),
        ("lab-numbers", "that is a workflow; its runs: `lockstep runs --pipeline lab-numbers`"),
        ("../cron-workflows/x", f"known: {RUN}"),
        ("@latest", f"known: {RUN}"),
    ],
)
def test_an_unknown_run_names_the_nearest(argo: ArgoStub, run: Document, told: Told, name: str, hint: str):
    assert main(["runs", name]) == 2
    assert told()[1] == (
        f"error: there is no run {name!r} in the namespace 'features' of {argo.url}\n\nHint: {hint}\n"
    )
    assert all(one.path.startswith("/api/v1/workflows/features") for one in argo.asked)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--watch"], "--watch is of one run"),
        ([RUN, "--phase", "Failed"], "--pipeline and --phase choose among runs, and one is named"),
        (["--pipeline", "numbres"], "there is no workflow 'numbres'\n\nHint: did you mean 'numbers'?"),
    ],
)
def test_what_makes_no_sense_is_said(argo: ArgoStub, told: Told, args: list[str], sentence: str):
    assert main(["runs", *args]) == 2
    assert sentence in told()[1]
    assert argo.asked == []


def test_a_list_that_is_not_allowed(argo: ArgoStub, told: Told):
    argo.faults["GET"] = [403]
    assert main(["runs"]) == 2
    assert "workflows: create, get, list; workflowtemplates: get" in told()[1]

"""A script is tried again as its `retryStrategy` says, and each attempt is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab import MODES, Manifest, call, dag, node, phases, script, task_of, template_of, workflow

from lockstep.errors import BadInput
from pipelines import local
from pipelines._manifest.expressions import ExpressionError
from pipelines._manifest.subset import OUTPUTS
from pipelines._run.retries import Attempt, Retries, read_retries
from pipelines.local import Run, Terms
from steps._step import RETRY_WHEN

Start = Callable[..., Run]
OURS = {"limit": 3, "expression": RETRY_WHEN, "backoff": {"duration": "30s", "factor": "2", "cap": "10m"}}


def flaky(tmp_path: Path, failures: int, way: str = "1", **strategy: Any) -> Manifest:
    """A workflow whose task `try` fails so many times."""
    given = {"folder": str(tmp_path), "failures": str(failures), "way": way}
    return workflow(
        dag(
            call("try", "flaky", given),
            call("then", "echo", {"text": "{{tasks.try.outputs.parameters.attempts}}"}, depends="try.Succeeded"),
        ),
        script(
            "flaky", dict.fromkeys(("folder", "failures", "way")), ("attempts",), retryStrategy=strategy or dict(OURS)
        ),
        script("echo", {"text": None, "loud": "false"}, ("text",)),
    )


@pytest.mark.parametrize("mode", ["in this process", "in two workers"])
def test_a_script_that_fails_twice_is_tried_three_times_and_then_goes_on(run: Start, tmp_path: Path, mode: str):
    ended = run(flaky(tmp_path, 2), how=MODES[mode])
    assert (ended.succeeded, ended.exit_code, ended.failed) == (True, 0, None)
    assert [(n.name, n.phase, n.kind) for n in ended.nodes] == [
        ("try(0)", "Failed", "attempt"),
        ("try(1)", "Failed", "attempt"),
        ("try(2)", "Succeeded", "attempt"),
        ("try", "Succeeded", "pod"),
        ("then", "Succeeded", "pod"),
    ]
    assert node(ended, "then").outputs == {"text": "3"}
    logs = [node(ended, f"try({n})").log for n in range(3)]
    assert [log.read_text().splitlines()[0] for log in logs if log] == ["attempt 1", "attempt 2", "attempt 3"]
    assert node(ended, "try").log == logs[2]


def test_a_limit_of_three_is_four_attempts_and_the_node_ends_as_the_last(run: Start, tmp_path: Path):
    ended = run(flaky(tmp_path, 9))
    assert [n.name for n in ended.nodes] == ["try(0)", "try(1)", "try(2)", "try(3)", "try", "then"]
    assert phases(ended) == {"try": "Failed", "then": "Omitted"}
    assert (ended.exit_code, ended.failed) == (1, node(ended, "try"))
    assert node(ended, "try").log == node(ended, "try(3)").log


@pytest.mark.parametrize("code", [2, 3])
def test_what_will_not_get_better_is_not_tried_again(run: Start, tmp_path: Path, code: int):
    ended = run(flaky(tmp_path, 9, way=str(code)))
    assert [n.name for n in ended.nodes] == ["try", "then"]
    assert (ended.exit_code, (tmp_path / "attempts").read_text()) == (code, "x")


def test_an_exit_handler_is_not_told_of_attempts_that_were_made_up_for(run: Start, tmp_path: Path):
    manifest = flaky(tmp_path, 1)
    manifest["spec"] |= {"onExit": "exit"}
    note = dict.fromkeys(("status", "failures")) | {"broken": "false"}
    manifest["spec"]["templates"] += [
        dag(
            call("note", "note-end", {"status": "{{workflow.status}}", "failures": "{{workflow.failures}}"}),
            name="exit",
        ),
        script("note_end", note, ("note",)),
    ]
    assert node(run(manifest), "onExit.note").outputs == {"note": 'Succeeded "[]"'}


def test_an_output_that_is_not_written_is_an_error_and_tried_again(run: Start, tmp_path: Path):
    manifest = flaky(tmp_path, 0)
    template_of(manifest, "flaky")["outputs"]["parameters"].append(
        {"name": "never", "valueFrom": {"path": f"{OUTPUTS}never"}}
    )
    ended = run(manifest)
    assert node(ended, "try").phase == "Error"
    assert node(ended, "try").message == "did not write its output never"
    assert (tmp_path / "attempts").read_text() == "xxxx"


# -- how long a retry waits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("longest", "waited"), [(0.0, [0, 0, 0]), (1.0, [1, 1, 1]), (100.0, [30, 60, 100])])
def test_a_retry_waits_its_back_off_but_no_longer_than_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: float, waited: list[float]
):
    seconds: list[float] = []
    monkeypatch.setattr("pipelines._run.turns.Turns.pause", lambda _, wait: seconds.append(wait))
    local.run_workflow(flaky(tmp_path, 9), {}, logs_dir=tmp_path / "r", terms=Terms(retry_wait=longest))
    assert seconds == waited


def test_back_off_grows_up_to_its_cap():
    retries = read_retries({"limit": 99, "backoff": {"duration": "1m30s", "factor": 2, "cap": "10m"}})
    assert [retries.wait(attempts) for attempts in (1, 2, 3, 4, 999)] == [90, 180, 360, 600, 600]
    assert read_retries({"limit": "2", "backoff": {"duration": "5"}}).wait(3) == 5
    assert read_retries({"limit": 1}).wait(1) == 0


# -- policies and expressions ------------------------------------------------------------------------------------------

FAILED_1, FAILED_2, KILLED = Attempt("Failed", 1), Attempt("Failed", 2), Attempt("Error", None)


@pytest.mark.parametrize(
    ("strategy", "again"),
    [
        (None, [False, False, False]),
        ({"limit": 1}, [True, True, False]),
        ({"limit": 1, "retryPolicy": "OnFailure"}, [True, True, False]),
        ({"limit": 1, "retryPolicy": "OnError"}, [False, False, True]),
        ({"limit": 1, "retryPolicy": "Always"}, [True, True, True]),
        ({"limit": 0, "retryPolicy": "Always"}, [False, False, False]),
        ({"limit": 1, "expression": RETRY_WHEN}, [True, False, True]),
        ({"limit": 1, "retryPolicy": "OnFailure", "expression": RETRY_WHEN}, [True, False, False]),
        ({"limit": 1, "expression": "asInt(lastRetry.exitCode) == -1"}, [False, False, True]),
        ({"limit": 1, "expression": "lastRetry.exitCode == '2'"}, [False, True, False]),
        ({"limit": 1, "expression": "asInt(lastRetry.exitCode) in [1, -1]"}, [True, False, True]),
        (
            {"limit": 1, "expression": "lastRetry.exitCode in ['1','2'] && lastRetry.status != \"Error\""},
            [True, True, False],
        ),
        (
            {"limit": 1, "expression": "lastRetry.status == 'Error' && asInt(lastRetry.exitCode) == 1 || 1 == 1"},
            [True, True, True],
        ),
        ({"limit": 1, "expression": "asInt( lastRetry.exitCode ) not  in []"}, [True, True, True]),
    ],
)
def test_what_is_tried_again(strategy: dict[str, Any] | None, again: list[bool]):
    retries = read_retries(strategy)
    assert [retries.again(attempt, 1) for attempt in (FAILED_1, FAILED_2, KILLED)] == again
    assert not retries.again(FAILED_1, 2)


def test_no_strategy_is_no_retry():
    assert read_retries(None) == Retries()
    assert not Retries().again(FAILED_1, 1)


@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        ({"expression": "1 == 1"}, "without a limit"),
        ({}, "without a limit"),
        ({"limit": "many"}, "the limit 'many'"),
        ({"limit": -1}, "the limit -1"),
        ({"limit": 1, "retryPolicy": "OnTransientError"}, "retryPolicy OnTransientError"),
        ({"limit": 1, "backoff": {"duration": "soon"}}, "the duration 'soon'"),
        ({"limit": 1, "backoff": {"duration": "1", "factor": "1.5"}}, "the factor '1.5'"),
        ({"limit": 1, "expression": "lastRetry.duration == '1'"}, "from .lastRetry.duration"),
        ({"limit": 1, "expression": "asFloat(lastRetry.exitCode) == 1"}, r"from 'asFloat\("),
        ({"limit": 1, "expression": "asInt(lastRetry.exitCode) > 1"}, "from '> 1'"),
        ({"limit": 1, "expression": "asInt(lastRetry.exitCode) == '1'"}, "from \"'1'\""),
        ({"limit": 1, "expression": "lastRetry.exitCode in [1]"}, "from '1'"),
        ({"limit": 1, "expression": "lastRetry.status == 'Error"}, 'from "\'Error"'),
        ({"limit": 1, "expression": "!(lastRetry.status == 'Error')"}, r"from .!\("),
        ({"limit": 1, "expression": "lastRetry.status"}, "from 'its end'"),
        ({"limit": 1, "expression": "lastRetry.status == 'a' lastRetry.status"}, "from 'lastRetry.status'"),
        ({"limit": 1, "expression": "lastRetry.status in ['a' 'b']"}, "from \"'b'\""),
        ({"limit": 1, "expression": "lastRetry.status in ['a'"}, "from 'its end'"),
        ({"limit": 1, "expression": "lastRetry.status in [lastRetry.exitCode]"}, "from 'lastRetry.exitCode'"),
        ({"limit": 1, "expression": "lastRetry.status =="}, "from 'its end'"),
    ],
)
def test_a_strategy_that_is_not_understood_says_where(strategy: dict[str, Any], sentence: str):
    with pytest.raises(ExpressionError, match=sentence):
        read_retries(strategy)


def test_an_expression_that_is_not_understood_is_refused_before_anything_runs(run: Start, tmp_path: Path):
    manifest = flaky(tmp_path, 0, limit=1, expression="retries > 3")
    with pytest.raises(
        BadInput, match="template 'flaky' uses the retry expression 'retries > 3', from 'retries > 3' on"
    ):
        run(manifest)
    assert not (tmp_path / "attempts").exists()


def test_a_script_that_is_not_reached_is_not_tried(run: Start, tmp_path: Path):
    manifest = flaky(tmp_path, 0)
    task_of(manifest, "main", "try")["when"] = "1 == 2"
    assert phases(run(manifest)) == {"try": "Skipped", "then": "Omitted"}

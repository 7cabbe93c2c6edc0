"""The console command: what it prints, and what it exits with."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from pipelines.cli import main
from pipelines.render import write


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    write(tmp_path / "manifests", "lab_pipelines")
    return tmp_path / "manifests"


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {command} " in told for command in ("render", "check", "run", "submit", "runs"))


def test_help_imports_nothing_heavy():
    code = "import sys, pipelines.cli; print([m for m in ('hera', 'pydantic', 'yaml', 'pandas', 'requests') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_the_module_is_the_command():
    ran = subprocess.run([sys.executable, "-m", "pipelines", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("lockstep, version ")


def test_render_says_what_it_wrote_and_then_that_all_is_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["render", "--package", "lab_pipelines"]) == 0
    folder = tmp_path / "manifests/apps/base/workflows"
    assert f"wrote {folder}/say/workflowtemplate.yaml\n" in capsys.readouterr().out
    assert main(["render", "--package", "lab_pipelines"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/manifests is what the code renders\n"


def test_check_is_quiet_about_what_is_right(manifests: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["check", "--package", "lab_pipelines"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    assert main(["check", "--package", "lab_pipelines", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_check_refuses_drift_and_says_what_to_do(manifests: Path, capsys: pytest.CaptureFixture[str]):
    (manifests / "apps/base/workflows/say/workflowtemplate.yaml").unlink()
    assert main(["check", "--package", "lab_pipelines"]) == 3
    told = capsys.readouterr()
    assert told.out == (
        f"{manifests}/apps/base/workflows/say/workflowtemplate.yaml:1: committed file: is not there\n"
        "  Hint: run `lockstep render` and commit what it wrote\n"
    )
    assert told.err == "error: 1 finding\n"
    assert main(["check", "--package", "lab_pipelines", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)[0]["what"] == "is not there"


def test_run_prints_a_line_a_node_and_the_outputs(manifests: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "numbers", "-p", "count=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:4]] == ["list", "each(0).double", "each(1).double", "sum"]
    assert lines[4].startswith("Skipped")
    assert lines[5:7] == ["total = 6", 'keys = ["n"]']
    assert lines[7].startswith("lab-numbers-")
    assert lines[7].endswith(" succeeded")


@pytest.mark.parametrize("command", [["run", "say", "-p", "text=a"], ["submit", "say", "-p", "text=a"], ["runs"]])
@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (
            b"kind: WorkflowTemplate\n<<<<<<< HEAD\nspec: {}\n",
            ":3",
            "no YAML that can be read: could not find expected",
        ),
        (b"spec: {}\n---\nspec: {}\n", ":2", "no YAML that can be read: but found another document"),
        (b"a: [1\n", ":2", "no YAML that can be read: did not find expected ',' or ']'"),
        (b"a: \x07\n", "", "no YAML that can be read: "),
        (b"a: \xff\n", "", "no YAML that can be read: "),
        (b"a: 2018-02-31\n", "", "no YAML that can be read: day is out of range for month"),
        (b"", "", "no mapping"),
        (b"- spec\n", "", "no mapping"),
        (b"metadata: {name: lab-say}\n", "", "no WorkflowTemplate: it has no `spec`"),
        (b"metadata: {name: lab-say}\nspec: [a]\n", "", "no WorkflowTemplate: it has no `spec`"),
        (b"spec: {}\n", "", "no WorkflowTemplate: it has no `metadata.name`"),
        (b"metadata: lab-say\nspec: {}\n", "", "no WorkflowTemplate: it has no `metadata.name`"),
        (b"metadata: {name: 1}\nspec: {}\n", "", "no WorkflowTemplate: it has no `metadata.name`"),
    ],
)
def test_a_broken_committed_file_is_bad_input_that_names_it(
    manifests: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    content: bytes,
    where: str,
    what: str,
):
    monkeypatch.setenv("LOCKSTEP_ARGO_SERVER", "http://127.0.0.1:1")
    path = manifests / "apps/base/workflows/say/workflowtemplate.yaml"
    path.write_bytes(content)
    assert main(command) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"error: {path}{where} is {what}")
    assert told.err.endswith("\n\nHint: run `lockstep render`: committed workflows are not written by hand\n")


def test_a_value_may_hold_equals_signs(manifests: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "say", "-p", "text=a=b=c"]) == 0
    assert "text = a=b=c\n" in capsys.readouterr().out


def test_a_failed_run_shows_the_node_its_log_and_where_that_is(
    manifests: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["run", "gated", "-p", "code=3"]) == 3
    told = capsys.readouterr()
    assert "Omitted" in told.out
    [log] = (tmp_path / "home/runs").glob("lab-gated-*/001-gate.log")
    lines = told.err.splitlines()
    assert "failed at gate, exit code 3: the gate says no" in lines[0]
    assert "  | Refused: the gate says no" in lines
    assert lines[-1] == f"log: {log}"


def test_only_the_last_lines_of_a_log_are_shown(manifests: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "gated", "-p", "code=1", "-p", "way=crash", "--retry-wait", "0"]) == 1
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  | ")]
    assert len(shown) <= 20
    assert shown[-1] == "  | ValueError: a bug"


QUERYING = """
import duckdb
from hera.workflows.io import Input, Output
from steps._step import step

class QueryInput(Input):
    swallow: bool

class QueryOutput(Output):
    rows: int

@step()
def query(given: QueryInput) -> QueryOutput:
    print("querying", flush=True)
    try:
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.execute("SELECT sum(i * i % 7) FROM range(1000000000000) t(i)").fetchall()
    except RuntimeError:
        if not given.swallow:
            raise
    return QueryOutput(rows=0)
"""
QUERY_TWICE = """
from hera.workflows import DAG, Parameter, WorkflowTemplate
from slow_steps.query import query

def build():
    with WorkflowTemplate(name="lab-slow", entrypoint="main", arguments=[Parameter(name="swallow")]) as template:
        with DAG(name="main", inputs=[Parameter(name="swallow")]) as main:
            given = {"swallow": main.get_parameter("swallow")}
            query(name="first", arguments=given)
            query(name="second", arguments=given, depends="first.Failed || first.Succeeded")
    return template

RESOURCES = (build,)
"""


@pytest.mark.parametrize("swallow", ["false", "true"])
def test_a_signal_that_a_step_s_query_makes_a_failure_of_ends_the_run(
    tmp_path: Path, package: Callable[..., str], swallow: str
):
    package("slow_steps", query=QUERYING)
    write(tmp_path / "manifests", package("slow_pipelines", slow=QUERY_TWICE))
    command = [sys.executable, "-m", "pipelines", "run", "slow", "-p", f"swallow={swallow}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as started:
        try:
            end = time.monotonic() + 60
            while "querying" not in "".join(log.read_text() for log in tmp_path.glob("home/runs/*/001-first.log")):
                assert time.monotonic() < end
                time.sleep(0.05)
            time.sleep(0.5)
            started.send_signal(signal.SIGTERM)
            said, _ = started.communicate(timeout=20)
        finally:
            started.kill()
    assert (started.returncode, said) == (128 + signal.SIGTERM, "")
    assert [log.name for log in tmp_path.glob("home/runs/*/*.log")] == ["001-first.log"]


def test_run_json_is_the_whole_run(manifests: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "lab-numbers", "-p", "count=1", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert (run["succeeded"], run["exit_code"], run["failed"]) == (True, 0, None)
    assert run["outputs"] == {"total": "2", "keys": '["n"]'}
    names = ["list", "each(0).double", "each(0)", "each", "sum", "onExit.note", "onExit"]
    assert [n["name"] for n in run["nodes"]] == names


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["run", "numbres"], "error: there is no workflow 'numbres'\n\nHint: did you mean 'numbers'?\n"),
        (
            ["run", "numbers", "-p", "cuont=1"],
            "error: workflow 'lab-numbers' has no parameter 'cuont'\n\nHint: did you mean 'count'?\n",
        ),
        (["run", "numbers", "-p", "count"], "error: -p 'count' is not NAME=VALUE\n"),
    ],
)
def test_bad_input_is_said_with_a_hint_and_exits_2(manifests: Path, capsys, args: list[str], told: str):
    assert main(args) == 2
    assert capsys.readouterr() == ("", told)


def test_an_unknown_command_exits_2(capsys: pytest.CaptureFixture[str]):
    assert main(["rnder"]) == 2
    assert "No such command 'rnder'" in capsys.readouterr().err


# -- a run, as it is shown ---------------------------------------------------------------------------------------------

RELEASE = """
from hera.workflows import DAG, Parameter, Suspend, WorkflowTemplate
from hera.workflows.models import TemplateRef
from hera.workflows import Task
from lab_steps.echo import echo

def build():
    with WorkflowTemplate(name="lab-release", entrypoint="main", arguments=[Parameter(name="text", value="yes")]) as template:
        values = Parameter(name="decision", enum=["no", "yes"], default="no", description="shall it go live")
        approve = Suspend(name="approve", intermediate_parameters=[values])
        with DAG(name="main"):
            approve(name="approve")
            echo(
                name="say",
                arguments={"text": "{{tasks.approve.outputs.parameters.decision}}"},
                depends="approve.Succeeded",
            )
            Task(
                name="far",
                template_ref=TemplateRef(name="lab-say", template="echo"),
                arguments={"text": "{{workflow.parameters.text}}"},
            )
    return template

RESOURCES = (build,)
"""


@pytest.fixture
def release(manifests: Path, tmp_path: Path, package: Callable[..., str]) -> None:
    write(tmp_path / "release", package("release_pipelines", release=RELEASE))
    folder = "apps/base/workflows/release"
    (tmp_path / "release" / folder).rename(manifests / folder)


@pytest.mark.parametrize("options", [[], ["--jobs", "2"], ["--isolate"]])
def test_the_ways_of_running_pods_come_to_the_same(manifests: Path, capsys, options: list[str]):
    assert main(["run", "say", "-p", "text='; rm -rf /", *options]) == 0
    assert "text = '; rm -rf /\n" in capsys.readouterr().out


@pytest.mark.usefixtures("release")
def test_an_approval_is_given_beforehand_and_a_reference_is_found(capsys: pytest.CaptureFixture[str]):
    assert main(["run", "release", "--approve", "approve=yes", "--json"]) == 0
    nodes = {node["name"]: node for node in json.loads(capsys.readouterr().out)["nodes"]}
    assert nodes["say"]["outputs"] == {"text": "yes"}
    assert (nodes["far"]["template"], nodes["far"]["outputs"]) == ("lab-say/echo", {"text": "yes"})


@pytest.mark.usefixtures("release")
def test_without_a_terminal_an_approval_is_refused_and_named(capsys: pytest.CaptureFixture[str]):
    assert main(["run", "release"]) == 3
    assert "failed at approve, exit code 3: nobody is here to decide" in capsys.readouterr().err


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--approve", "aprove=yes"], "--approve aprove: nothing of that name waits for an approval"),
        (["--approve", "approve=maybe"], "--approve approve cannot be 'maybe'"),
        (["--approve", "approve"], "--approve 'approve' is not NAME=VALUE"),
        (["--jobs", "0"], "Invalid value for '--jobs'"),
        (["--retry-wait", "soon"], "Invalid value for '--retry-wait'"),
    ],
)
def test_options_that_mean_nothing_exit_2(capsys: pytest.CaptureFixture[str], args: list[str], told: str):
    assert main(["run", "release", *args]) == 2
    assert told in capsys.readouterr().err


def test_attempts_have_lines_of_their_own(manifests: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "gated", "-p", "code=1", "--retry-wait", "0"]) == 1
    names = [line.split("  (")[0].split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert names[:5] == ["gate(0)", "gate(1)", "gate(2)", "gate(3)", "gate"]


class Terminal:
    """A run that is watched, and asked, on a terminal."""

    def __init__(self, *options: str) -> None:
        path = os.pathsep.join(path for path in sys.path if path)
        environment = os.environ | {"PYTHONPATH": path, "TERM": "xterm"}
        for name in ("TTY_COMPATIBLE", "FORCE_COLOR", "NO_COLOR"):
            environment.pop(name, None)
        command = [sys.executable, "-m", "pipelines", "run", "release", *options]
        self.screen, side = os.openpty()
        os.set_blocking(self.screen, False)
        self.process = subprocess.Popen(command, env=environment, stdin=side, stdout=side, stderr=side)
        os.close(side)
        self.said = b""

    def until(self, words: bytes, times: int = 1) -> None:
        """Wait until some words have been shown so often."""
        end = time.monotonic() + 60
        while self.said.count(words) < times:
            assert time.monotonic() < end, self.said
            try:
                self.said += os.read(self.screen, 65_536)
            except BlockingIOError:
                time.sleep(0.02)

    def type(self, words: bytes) -> None:
        os.write(self.screen, words)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.screen)


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize("options", [[], ["--jobs", "2"]], ids=["in this process", "two workers"])
def test_on_a_terminal_a_person_is_asked_until_the_answer_is_one(options: list[str]):
    with Terminal(*options) as terminal:
        terminal.until(b"approve waits for decision (shall it go live) (no, yes): ")
        terminal.type(b"maybe\n")
        terminal.until(b"'maybe' is not one of 'no', 'yes'.")
        terminal.until(b"(no, yes): ", times=2)
        terminal.type(b"yes\n")
        terminal.until(b" succeeded\r\n")
        assert terminal.process.wait(timeout=30) == 0
    lines = [line for line in terminal.said.decode().splitlines() if "Succeeded" in line]
    assert sorted(line.split()[-1] for line in lines) == ["approve", "far", "say"]


@pytest.mark.usefixtures("release")
def test_a_ctrl_c_at_the_question_ends_the_run():
    with Terminal("--jobs", "2") as terminal:
        terminal.until(b"(no, yes): ")
        # Python's input() misses a signal between its prompt and its read; a person would press the keys again.
        for _ in range(30):
            terminal.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                assert terminal.process.wait(timeout=1) == 130
                break
        assert terminal.process.poll() == 130

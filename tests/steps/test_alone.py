"""A step is also a program: its options are its inputs, its last line what it returns, its exit code the pod's."""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import steps
from lockstep.errors import BadInput, Refused
from steps import _step
from steps._alone import run_alone
from steps._step import as_in_a_pod
from steps.list_views import list_views
from steps.verify_materialization import verify_materialization

MODULES = sorted(m.name for m in pkgutil.iter_modules(steps.__path__) if not m.name.startswith("_"))
HEAVY = {"feast", "mlflow", "sklearn", "kserve", "skops"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path / "home"))


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ)
    )


def test_what_a_step_returns_is_printed_as_json(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        run_alone(list_views, ["--views", "terminal_risk,customer_spend"])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out) == {"names": ["terminal_risk", "customer_spend"]}


def test_an_error_ends_as_in_the_pod(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        run_alone(list_views, ["--views", "terminal_rsk"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("BadInput: there is no feature view 'terminal_rsk'\n\nHint: did you mean 'terminal_risk'")


def test_an_option_of_the_wrong_kind_is_named(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        run_alone(verify_materialization, ["--view", "customer_spend", "--interval", "seven"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("python -m steps.verify_materialization: --interval: Input should be a valid integer")


def test_a_list_of_what_chunks_wrote_is_given_as_json(capsys) -> None:
    chunk = {"accepted": 3, "rejected": 1, "digest": "0", "how": "added"}
    with pytest.raises(SystemExit) as end:
        run_alone(verify_materialization, ["--view", "v", "--interval", "0", "--written", json.dumps([chunk])])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out) == {"keys": 4}


def test_each_step_is_a_program_that_says_what_it_takes() -> None:
    # In one process: each would pay a second for its imports.
    run = "import runpy, sys\nfor name in sys.argv[1:]:\n"
    run += "    sys.argv = [name, '--help']\n    try: runpy.run_module(f'steps.{name}', run_name='__main__')\n"
    run += "    except SystemExit as end: assert end.code == 0, name\n"
    done = python("-W", "ignore", "-c", run, *MODULES)
    assert done.returncode == 0, done.stderr
    assert [line.split()[3] for line in done.stdout.splitlines() if line.startswith("usage:")] == [
        f"steps.{name}" for name in MODULES
    ]


def test_what_few_steps_need_is_imported_by_none_before_it_runs() -> None:
    show = "import sys, importlib\n[importlib.import_module(f'steps.{name}') for name in sys.argv[1:]]\n"
    show += f"print(sorted({HEAVY!r} & set(sys.modules)))"
    done = python("-c", show, *MODULES)
    assert done.stdout == "[]\n", done.stderr


def test_the_error_is_left_where_argo_takes_a_node_s_message_from(tmp_path: Path, monkeypatch, capsys) -> None:
    log = tmp_path / "termination-log"
    monkeypatch.setattr(_step, "TERMINATION_LOG", log)

    def gate() -> None:
        raise Refused("two features differ", hint="read the report")

    with pytest.raises(SystemExit):
        as_in_a_pod(gate)()
    assert not log.exists(), "not in a pod: nothing is made"
    log.touch()
    with pytest.raises(SystemExit) as end:
        as_in_a_pod(gate)()
    assert end.value.code == 3
    assert log.read_text() == "Refused: two features differ\n\nHint: read the report"


def test_a_long_error_is_cut_to_what_kubernetes_takes(tmp_path: Path, monkeypatch, capsys) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setattr(_step, "TERMINATION_LOG", log)

    def step() -> None:
        raise BadInput("ä" * 10_000)

    with pytest.raises(SystemExit):
        as_in_a_pod(step)()
    assert 1_000 < len(log.read_bytes()) <= 4_096


def test_a_parameter_of_the_wrong_kind_is_terminal_in_a_pod_too(tmp_path: Path) -> None:
    parameters = tmp_path / "parameters.json"
    given = {"model": "m", "rows": "abc", "batch": "20", "fallback": "false"}
    parameters.write_text(json.dumps([{"name": n, "value": v} for n, v in given.items()]))
    environment = os.environ | {"hera__outputs_directory": str(tmp_path / "outputs")}
    command = [sys.executable, "-m", "hera.workflows.runner", "-e", "steps.shadow_replay:shadow_replay"]
    done = subprocess.run(
        [*command, str(parameters)], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 2
    assert done.stderr.startswith("BadInput: parameters: rows: Input should be a valid integer")
    assert "Traceback" not in done.stderr
    assert (tmp_path / "outputs" / "parameters" / "scored").exists()

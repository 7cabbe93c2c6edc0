"""Several pods at a time, in processes that may die; and what bounds them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab import MODES, Manifest, call, dag, node, phases, script, steps, workflow

from pipelines.local import Run, Terms, run_workflow
from pipelines.render import write
from steps._step import RETRY_WHEN

Start = Callable[..., Run]
BESIDE = [{"jobs": 2}, {"jobs": 2, "isolate": True}]
INSIDE = script("inside", {"folder": None, "name": None, "wait_for": "2", "patience": "0.4"}, ("seen",))
DOUBLE = script("double", {"n": None, "refuse": "0"}, ("doubled",))
GATE = script("gate", {"code": "0", "way": "raise"}, ("report",))


def together(tmp_path: Path, *names: str, wait_for: int = 2, patience: float = 0.4, **more: Any) -> list[Manifest]:
    given = {"folder": str(tmp_path), "wait_for": str(wait_for), "patience": str(patience)}
    return [call(name, "inside", given | {"name": name}, **more) for name in names]


def warm(tmp_path: Path, jobs: int, *templates: Manifest) -> Manifest:
    """The first template, once all workers have come together: from then on they are as fast as each other."""
    first = together(tmp_path, *(f"worker-{n}" for n in range(jobs)), wait_for=jobs, patience=60)
    return workflow(steps(first, [call("then", templates[0]["name"])], name="warm"), *templates)


def seen(run: Run) -> dict[str, int]:
    return {n.name: int(n.outputs["seen"]) for n in run.nodes if n.kind == "pod" and ".worker-" not in n.name}


# -- at the same time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", BESIDE, ids=["workers", "isolated"])
def test_tasks_that_wait_for_nothing_run_at_the_same_time(run: Start, tmp_path: Path, how: dict[str, Any]):
    """Each comes to its end only because it meets the other."""
    manifest = workflow(dag(*together(tmp_path, "a", "b", patience=60)), INSIDE)
    assert seen(run(manifest, how=how)) == {"a": 2, "b": 2}


def test_items_and_steps_of_a_group_run_at_the_same_time(run: Start, tmp_path: Path):
    [each] = together(tmp_path, "x{{item}}", patience=60)
    items = each | {"name": "each", "withParam": "[1, 2]"}
    manifest = workflow(steps([items], together(tmp_path, "a", "b", patience=60)), INSIDE)
    assert seen(run(manifest, how={"jobs": 2})) == {"[0].each(0)": 2, "[0].each(1)": 2, "[1].a": 2, "[1].b": 2}


def test_no_more_pods_run_than_there_are_jobs(run: Start, tmp_path: Path):
    """A third would be seen by the others, which wait for it."""
    three = dag(*together(tmp_path, "a", "b", "c", wait_for=3))
    assert max(seen(run(warm(tmp_path, 2, three, INSIDE), how={"jobs": 2})).values()) == 2
    three = dag(*together(tmp_path, "a", "b", "c", wait_for=3, patience=60))
    assert set(seen(run(workflow(three, INSIDE), how={"jobs": 3})).values()) == {3}


def test_one_job_runs_one_task_after_the_other_in_this_process(run: Start):
    manifest = workflow(
        dag(*(call(name, "whereabouts") for name in ("b", "a", "c"))),
        script("whereabouts", {"listen": "false"}, ("process",)),
    )
    ended = run(manifest)
    assert [(n.name, n.outputs["process"]) for n in ended.nodes] == [(n, str(os.getpid())) for n in ("b", "a", "c")]


def test_a_failed_task_does_not_keep_another_branch_from_its_end(run: Start):
    """Argo, too, starts what is ready before it looks whether the DAG has failed."""
    manifest = workflow(
        dag(
            call("bad", "gate", {"code": "2"}),
            call("long", "gate"),
            call("longer", "gate", depends="long.Succeeded"),
            call("never", "gate", depends="bad.Succeeded"),
        ),
        GATE,
    )
    for how in ({}, {"jobs": 2}):
        ended = run(manifest, how=how)
        assert phases(ended) == {"bad": "Failed", "long": "Succeeded", "longer": "Succeeded", "never": "Omitted"}
        assert ended.exit_code == 2


# -- what bounds them --------------------------------------------------------------------------------------------------


def test_the_parallelism_of_a_workflow_bounds_its_pods(run: Start, tmp_path: Path):
    manifest = workflow(dag(*together(tmp_path, "a", "b", "c")), INSIDE, parallelism=1)
    assert seen(run(manifest, how={"jobs": 3})) == {"a": 1, "b": 1, "c": 1}


def test_the_parallelism_of_a_template_bounds_its_children_and_no_others(run: Start, tmp_path: Path):
    names = {name: "{{inputs.parameters.of}}" + name for name in "abc"}
    children = [task | {"name": name} for name in names for task in together(tmp_path, names[name])]
    one_by_one = dag(*children, name="one-by-one", inputs=("of",), parallelism=1)
    alone = dag(call("x", "one-by-one", {"of": "x"}))
    assert set(seen(run(warm(tmp_path, 2, alone, one_by_one, INSIDE), how={"jobs": 2})).values()) == {1}
    [child] = together(tmp_path, "{{inputs.parameters.of}}", patience=60)
    one_by_one = steps([child | {"name": "a"}], name="one-by-one", inputs=("of",), parallelism=1)
    both = dag(*(call(of, "one-by-one", {"of": of}) for of in "xy"))
    assert set(seen(run(workflow(both, one_by_one, INSIDE), how={"jobs": 2})).values()) == {2}


@pytest.mark.parametrize(
    ("views", "patience", "met"), [(("v", "v", "v"), 0.4, 1), (("v", "w"), 60, 2)], ids=["one view", "two views"]
)
def test_a_mutex_is_held_by_one_at_a_time_and_named_by_tags(
    run: Start, tmp_path: Path, views: tuple[str, ...], patience: float, met: int
):
    items = [{"name": f"n{number}", "view": view} for number, view in enumerate(views)]
    given = {"name": "{{item.name}}", "view": "{{item.view}}"}
    [task] = together(tmp_path, "{{inputs.parameters.name}}", patience=patience)
    mutex = {"mutexes": [{"name": "lab-{{inputs.parameters.view}}"}]}
    held = dag(task | {"name": "inside"}, name="held", inputs=("name", "view"), synchronization=mutex)
    every = dag(call("each", "held", given, withParam=json.dumps(items)))
    ended = run(warm(tmp_path, 2, every, held, INSIDE), how={"jobs": 2})
    assert list(seen(ended).values()) == [met] * len(views)


def test_a_mutex_of_a_script_is_held_through_its_retries(run: Start, tmp_path: Path):
    mutex = {"synchronization": {"mutexes": [{"name": "m"}]}}
    flaky = script(
        "flaky", {"folder": None, "failures": "1", "way": "1"}, ("attempts",), retryStrategy={"limit": 1}, **mutex
    )
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    manifest = workflow(dag(*(call(n, "flaky", {"folder": str(tmp_path / n)}) for n in ("x", "y"))), flaky)
    names = [n.name for n in run(manifest, how={"jobs": 2}).nodes]
    assert sorted([names[:3], names[3:]]) == [["x(0)", "x(1)", "x"], ["y(0)", "y(1)", "y"]]


@pytest.mark.parametrize("how", [{}, {"jobs": 2}])
def test_a_mutex_that_is_held_around_a_node_is_an_error_and_not_a_wait_for_ever(run: Start, how: dict[str, Any]):
    """Found before anything runs, if the name is not an input's."""
    held = {"synchronization": {"mutexes": [{"name": "{{inputs.parameters.lock}}"}]}}
    wanted = {"synchronization": {"mutexes": [{"name": "m"}]}}
    outer = dag(call("b", "gate"), name="outer", inputs=("lock",), **held)
    manifest = workflow(dag(call("a", "outer", {"lock": "m"})), outer, GATE | wanted)
    ended = run(manifest, how=how)
    assert phases(ended) == {"a.b": "Error", "a": "Error"}
    assert node(ended, "a.b").message == "it waits for the mutex 'm', which a around it holds"


# -- processes ---------------------------------------------------------------------------------------------------------


def whereabouts(*names: str) -> Manifest:
    chain = [
        call(name, "whereabouts", depends=f"{before}.Succeeded" if before else "")
        for before, name in zip(("", *names), names, strict=False)
    ]
    return workflow(dag(*chain), script("whereabouts", {"listen": "true"}, ("process", "typed", "arguments")))


def test_a_worker_is_kept_from_one_pod_to_the_next(run: Start):
    ended = run(whereabouts("a", "b", "c", "d"), how={"jobs": 2})
    processes = {n.outputs["process"] for n in ended.nodes}
    assert len(processes) <= 2
    assert str(os.getpid()) not in processes


def test_an_isolated_pod_is_a_process_of_its_own_that_runs_the_rendered_command(run: Start):
    ended = run(whereabouts("a", "b"), how={"isolate": True})
    processes = {n.outputs["process"] for n in ended.nodes}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes
    command = node(ended, "a").outputs["arguments"]
    assert command.startswith('["-m", "hera.workflows.runner", "-e", "lab_steps.whereabouts:whereabouts", "/')


@pytest.mark.parametrize("how", BESIDE, ids=["workers", "isolated"])
def test_nobody_types_into_a_pod(run: Start, how: dict[str, Any]):
    assert node(run(whereabouts("a"), how=how), "a").outputs["typed"] == ""


def flaky(tmp_path: Path, way: str, failures: int = 1, **more: Any) -> Manifest:
    given = {"folder": str(tmp_path), "failures": str(failures), "way": way}
    return workflow(
        dag(
            call("dies", "flaky", given), call("next", "gate", depends="dies.Failed || dies.Errored || dies.Succeeded")
        ),
        script("flaky", dict.fromkeys(("folder", "failures", "way")), ("attempts",), **more),
        GATE,
    )


@pytest.mark.parametrize(("way", "words"), [("kill", "SIGKILL"), ("os", "exit code 5")])
def test_a_worker_that_dies_makes_its_node_an_error_and_another_goes_on(
    run: Start, tmp_path: Path, way: str, words: str
):
    ended = run(flaky(tmp_path, way), how={"jobs": 2})
    died = node(ended, "dies")
    assert (died.phase, died.exit_code, died.message) == ("Error", None, f"its process died: {words}")
    assert died.log is not None
    assert died.log.read_text() == "attempt 1\n"
    assert (node(ended, "next").phase, ended.succeeded) == ("Succeeded", True)


def test_a_worker_that_dies_is_missed_though_a_child_of_its_own_holds_its_pipe(
    run: Start, tmp_path: Path, package: Callable[..., str]
):
    package("forking_steps", fork=FORKING)
    fork = script("fork", {"folder": None}, ("done",))
    fork["script"]["args"][-1] = "forking_steps.fork:fork"
    ended = run(workflow(dag(call("a", "fork", {"folder": str(tmp_path)})), fork), how={"jobs": 2})
    assert (node(ended, "a").phase, node(ended, "a").message) == ("Error", "its process died: exit code 7")
    assert all_gone([int((tmp_path / "child").read_text())])


def test_a_worker_that_dies_is_tried_again_by_our_own_expression(run: Start, tmp_path: Path):
    manifest = flaky(tmp_path, "kill", retryStrategy={"limit": 3, "expression": RETRY_WHEN})
    ended = run(manifest, how={"jobs": 2})
    assert [(n.name, n.phase) for n in ended.nodes][:3] == [
        ("dies(0)", "Error"),
        ("dies(1)", "Succeeded"),
        ("dies", "Succeeded"),
    ]
    assert node(ended, "dies").outputs == {"attempts": "2"}


@pytest.mark.parametrize(("way", "code"), [("kill", 137), ("os", 5)])
def test_an_isolated_pod_that_dies_has_failed_as_its_container_would(run: Start, tmp_path: Path, way: str, code: int):
    died = node(run(flaky(tmp_path, way), how={"isolate": True}), "dies")
    assert (died.phase, died.exit_code) == ("Failed", code)


def test_a_run_whose_only_failure_is_a_death_may_succeed_when_tried_again(run: Start, tmp_path: Path):
    manifest = flaky(tmp_path, "kill")
    manifest["spec"]["templates"][0]["dag"]["tasks"].pop()
    ended = run(manifest, how={"jobs": 2})
    assert (ended.succeeded, ended.exit_code, ended.failed) == (False, 1, node(ended, "dies"))


def test_a_bug_in_who_is_told_ends_the_run_and_its_workers(tmp_path: Path):
    class Deaf:
        def started(self, name: str) -> None: ...

        def ended(self, node: Any) -> None:
            raise ZeroDivisionError

    manifest = workflow(dag(*(call(name, "gate") for name in "abc")), GATE)
    with pytest.raises(ZeroDivisionError):
        run_workflow(manifest, {}, logs_dir=tmp_path / "r", jobs=2, watch=Deaf(), terms=Terms())
    assert children() == []


def children() -> list[int]:
    """Of this process, by what they run: workers and pods."""
    ran = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    lines = [line.split(maxsplit=1) for line in ran.stdout.splitlines()]
    return [int(pid) for pid, command in lines if "_worker" in command or "hera.workflows.runner" in command]


@pytest.mark.parametrize("mode", ["in two workers", "isolated"])
def test_nothing_is_left_behind(run: Start, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(workflow(dag(call("a", "gate")), GATE), how=MODES[mode]).succeeded
    assert children() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs"]


# -- an end that comes from outside ------------------------------------------------------------------------------------

FORKING = """
import os, time
from pathlib import Path
from hera.workflows.io import Input, Output
from steps._step import step

class ForkInput(Input):
    folder: str

class ForkOutput(Output):
    done: bool

@step()
def fork(given: ForkInput) -> ForkOutput:
    child = os.fork()
    if child == 0:
        time.sleep(300)
    Path(given.folder, "child").write_text(str(child))
    os._exit(7)
"""
SLEEPING = """
import os, subprocess, sys, time
from pathlib import Path
from hera.workflows.io import Input, Output
from steps._step import step

class SleepInput(Input):
    folder: str

class SleepOutput(Output):
    slept: bool

@step()
def sleep(given: SleepInput) -> SleepOutput:
    child = subprocess.Popen(["sleep", "300"])
    Path(given.folder, f"{os.getpid()}.pid").write_text(str(child.pid))
    time.sleep(300)
    return SleepOutput(slept=True)
"""
SLEEP_TWICE = """
from hera.workflows import DAG, Parameter, WorkflowTemplate
from sleepy_steps.sleep import sleep

def build():
    with WorkflowTemplate(name="lab-sleep", entrypoint="main", arguments=[Parameter(name="folder")]) as template:
        with DAG(name="main", inputs=[Parameter(name="folder")]) as main:
            given = {"folder": main.get_parameter("folder")}
            sleep(name="first", arguments=given)
            sleep(name="second", arguments=given)
            sleep(name="third", arguments=given, depends="first.Succeeded || first.Failed || first.Errored")
    return template

RESOURCES = (build,)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_gone(pids: list[int]) -> bool:
    """Within the moment that a killed process takes."""
    end = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


@pytest.mark.parametrize(
    ("options", "number", "code"),
    [
        (["--jobs", "2"], signal.SIGINT, 130),
        (["--jobs", "2"], signal.SIGTERM, 143),
        (["--jobs", "2", "--isolate"], signal.SIGTERM, 143),
    ],
    ids=["workers and Ctrl-C", "workers", "isolated"],
)
def test_a_signal_ends_the_run_its_pods_and_what_those_started(
    tmp_path: Path, package: Callable[..., str], options: list[str], number: signal.Signals, code: int
):
    package("sleepy_steps", sleep=SLEEPING)
    write(tmp_path / "manifests", package("sleepy_pipelines", sleep=SLEEP_TWICE))
    command = [sys.executable, "-m", "pipelines", "run", "sleep", "-p", f"folder={tmp_path}", *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            end = time.monotonic() + 60
            while len(noted := list(tmp_path.glob("*.pid"))) < 2 or not all(note.read_text() for note in noted):
                assert time.monotonic() < end, started.stderr
                time.sleep(0.05)
            pids = [int(pid) for note in noted for pid in (note.stem, note.read_text())]
            assert all(map(alive, pids))
            started.send_signal(number)
            said, _ = started.communicate(timeout=30)
        finally:
            started.kill()
    assert (started.returncode, said) == (code, "")
    assert all_gone(pids)
    assert len(list(tmp_path.glob("home/runs/*/*.log"))) == 2, "the third task is not begun"

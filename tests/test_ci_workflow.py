"""The committed CI workflow runs what there is, and is given no more than it needs."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cli import cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / ".github/workflows/lockstep.yaml").read_text()
WORKFLOW = yaml.safe_load(TEXT)
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
SCRIPTS = [step["run"] for step in STEPS if "run" in step]


def lockstep_calls() -> list[list[str]]:
    """What is handed to `lockstep` in the scripts, without redirections."""
    lines = [line for script in SCRIPTS for line in script.splitlines() if ".venv/bin/lockstep" in line]
    return [shlex.split(re.split(r"\s(?:2?>|&&|\|)", line)[0])[1:] for line in lines]


def test_it_runs_plan_and_ci_with_options_that_the_commands_have() -> None:
    calls = lockstep_calls()
    assert [call[0] for call in calls] == ["plan", "plan", "ci"]
    for name, *arguments in calls:
        known = {option for parameter in cli.commands[name].params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("-")} <= known


def test_make_has_its_targets() -> None:
    targets = {word for script in SCRIPTS for word in re.findall(r"^make (\S+)", script, re.MULTILINE)}
    assert targets == {"setup", "check", "test", "test-long"}
    makefile = (ROOT / "Makefile").read_text()
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_it_may_read_and_nothing_else() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert [name for name, job in WORKFLOW["jobs"].items() if "permissions" in job or "secrets" in job] == []
    assert set(WORKFLOW[True]) == {"pull_request", "push"}  # YAML 1.1 reads `on` as true
    assert "secrets." not in TEXT


def test_no_expression_is_put_into_a_script() -> None:
    assert [script for script in SCRIPTS if "${{" in script] == []


def test_actions_are_named_by_commit_and_leave_no_credentials() -> None:
    used = [step for step in STEPS if "uses" in step]
    assert {step["uses"].partition("@")[0] for step in used} == {"actions/checkout", "actions/setup-python"}
    assert [step["uses"] for step in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])] == []
    checkouts = [step["with"] for step in used if step["uses"].startswith("actions/checkout")]
    assert {given["persist-credentials"] for given in checkouts} == {False}
    assert [job for job in ("plan", "view") if WORKFLOW["jobs"][job]["steps"][0]["with"].get("fetch-depth") != 0] == []


def test_each_job_ends_by_itself() -> None:
    assert all(job["timeout-minutes"] <= 30 for job in WORKFLOW["jobs"].values())


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is on GitHub's machines")
@pytest.mark.parametrize(("code", "views"), [(0, ["a", "b"]), (3, None)])
def test_its_scripts_hand_on_what_the_command_says(tmp_path: Path, code: int, views: Any) -> None:
    """Run the plan job's scripts with a `lockstep` that only says something and ends."""
    binary = tmp_path / ".venv/bin/lockstep"
    binary.parent.mkdir(parents=True)
    binary.write_text(f"#!/bin/sh\necho '{json.dumps({'changed_views': views})}'\nexit {code}\n")
    binary.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "FROM": "x", "VIEW": "v"}
    environment |= {f"GITHUB_{name}": str(tmp_path / name) for name in ("STEP_SUMMARY", "OUTPUT")}
    ended: list[int] = []
    for script in (step["run"] for step in WORKFLOW["jobs"]["plan"]["steps"] if "lockstep" in step.get("run", "")):
        done = subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=tmp_path, env=environment, check=False)
        ended.append(done.returncode)
    assert ended == [code, code]
    assert (tmp_path / "STEP_SUMMARY").read_text().count("```") == 2
    if views:
        assert (tmp_path / "OUTPUT").read_text() == 'views=["a","b"]\n'


def the_live_one(folder: Path, live: str) -> subprocess.CompletedProcess[str]:
    """Run the step that finds what is live."""
    [script] = [step["run"] for step in STEPS if step.get("id") == "live"]
    output = folder / "output"
    output.unlink(missing_ok=True)
    environment = {"PATH": "/usr/bin:/bin", "LIVE": live, "GITHUB_OUTPUT": str(output)}
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=folder / "repository",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def evaluated(event: str, before: str = "") -> str:
    """What GitHub makes of the expression: its `a && b || c` is Python's `b if a else c`."""
    given = "${{ github.event_name == 'pull_request' && 'HEAD^1' || github.event.before }}"
    assert WORKFLOW["env"]["LIVE"] == given
    return "HEAD^1" if event == "pull_request" else before


def test_a_change_is_compared_with_what_is_live(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    root.mkdir()

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *arguments], cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(text: str) -> str:
        (root / "file").write_text(text)
        git("add", "file")
        git("commit", "-qm", text)
        return git("rev-parse", "HEAD")

    def found(event: str, before: str = "") -> str:
        assert the_live_one(tmp_path, evaluated(event, before)).returncode == 0
        return (tmp_path / "output").read_text().removeprefix("from=").strip()

    git("init", "-q", "-b", "main")
    base = commit("base")
    assert the_live_one(tmp_path, "0" * 40).returncode != 0, "there is nothing before the first commit"
    git("checkout", "-qb", "mine")
    mine = [commit("one"), commit("two")]
    git("checkout", "-q", "--detach", "main")
    git("merge", "-q", "--no-ff", "mine", "-m", "merge")
    merge = git("rev-parse", "HEAD")
    # The pull request alone, also when main has gone on since GitHub merged it.
    git("checkout", "-q", "main")
    later = commit("later")
    git("update-ref", "refs/remotes/origin/main", later)
    git("checkout", "-q", merge)
    assert found("pull_request") == base
    # All commits of a push, not only its last one.
    git("checkout", "-q", "mine")
    assert found("push", base) == base
    # A new branch, and one that was pushed by force over what nobody has any more.
    for gone in ("0" * 40, "1" * 40):
        assert found("push", gone) == mine[0]


def test_the_plan_and_the_views_are_compared_with_the_same_revision() -> None:
    plan, view = WORKFLOW["jobs"]["plan"], WORKFLOW["jobs"]["view"]
    calling = [step for step in plan["steps"] if "lockstep plan" in step.get("run", "")]
    assert [step["env"]["FROM"] for step in calling] == ["${{ steps.live.outputs.from }}"] * 2
    assert plan["outputs"]["from"] == "${{ steps.live.outputs.from }}"
    assert view["env"]["FROM"] == "${{ needs.plan.outputs.from }}"

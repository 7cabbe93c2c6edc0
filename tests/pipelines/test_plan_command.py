"""`lockstep plan` on a real git repository: what it compares with, what it prints, and what it exits with."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from mill_repository import Mill

from lockstep.changes.revisions import find_repository, read_definitions, work_tree
from lockstep.clock import parse_time
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode
from lockstep.settings import Settings
from pipelines.cli import main

DELAY = ("views/site_breakdowns.py", "delay=days(3)", "delay=days(4)")
OWNER = ("views/pump_file.py", 'owner="site-operations"', 'owner="stores"')
SOURCE = ("on_demand/reading.py", "_KPA_PER_BAR = 100", "_KPA_PER_BAR = 100.0")


def planned(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert main(["plan", "--json", *arguments]) == code
    return json.loads(capsys.readouterr().out)


def test_nothing_changed_on_the_main_branch_itself(mill: Mill, capsys: pytest.CaptureFixture[str]) -> None:
    base = mill.git("rev-parse", "HEAD")
    assert main(["plan", "--detailed-exitcode"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [
        "no definition changed",
        f"  from      {base[:7]}, where HEAD left main",
        "  to        the work tree",
    ]
    assert "no registry at" in said[3]


def test_a_branch_is_compared_with_where_it_left_main_what_is_not_committed_included(
    mill: Mill, capsys: pytest.CaptureFixture[str]
) -> None:
    base = mill.git("rev-parse", "HEAD")
    mill.git("checkout", "-qb", "mine")
    mill.edit(*DELAY)
    mine = mill.commit()
    mill.git("checkout", "-q", "main")
    mill.edit("views/reading.py", "description=", "description='on main, meanwhile: '")
    mill.commit()
    mill.git("checkout", "-q", "mine")
    mill.edit(*OWNER)
    plan = planned(capsys)
    assert plan["from"] == {"name": f"{base[:7]}, where HEAD left main", "commit": base}
    assert plan["changed_views"] == ["site_breakdowns"]
    assert {s["name"]: s["consequence"] for s in plan["subjects"]} == {
        "site_breakdowns": "backfill",
        "pump_file": "register",
    }
    assert [c["what"] for c in plan["subjects"][0]["changes"]] == [
        "delay",
        f"model pump_failure (as {base[:7]} declares it)",
    ]
    committed = planned(capsys, "--to", mine)
    assert [s["name"] for s in committed["subjects"]] == ["site_breakdowns"]
    assert main(["plan", "--detailed-exitcode"]) == 4
    said = capsys.readouterr().out
    assert said.startswith("2 definitions changed: register, retrain, backfill\n")
    assert "\nsite_breakdowns  (stored view, site-operations): backfill\n  delay     3 d → 4 d\n" in said
    assert said.endswith(
        "after the merge:\n"
        "  lockstep run apply-definitions\n"
        "  lockstep backfill site_breakdowns --from … --to …\n"
        "  lockstep run train -p known_at=…\n"
    )


def computed_from(*expired: bool) -> list[str]:
    """A ledger with a day of ticks for each, bootstrapped and then live, and a lake; return the days' bounds."""
    settings = Settings.load()
    settings.home.mkdir(parents=True)
    lake, ledger = Lake.open(settings, "mill"), Ledger.open(settings, "mill")
    source = pa.table({"reading_id": pa.array([1], pa.int64())})
    lake.ensure_table("outcomes", source.schema)
    lake.append("outcomes", source)
    [alive] = lake.snapshots("outcomes")
    days = [parse_time(f"2021-03-{5 + n:02}T00:00:00Z") for n in range(len(expired) + 1)]
    for n, gone in enumerate(expired):
        mode, read = Mode.LIVE if n else Mode.BOOTSTRAP, {"outcomes": 1 if gone else alive.id}
        ledger.plan_compute("site_breakdowns", mode, days[n], days[n + 1], read, days[n + 1])
    return [f"{day:%Y-%m-%dT%H:%M:%SZ}" for day in days]


@pytest.mark.parametrize(
    ("expired", "again", "kept"),
    [
        ((False, False), [(0, 2)], []),
        # A month later: of the bootstrapped ticks the source is always kept.
        ((False, True, True, False, False), [(0, 1), (3, 5)], [(1, 3)]),
        ((True, False), [(1, 2)], [(0, 1)]),
    ],
)
def test_the_ticks_to_compute_again_are_those_whose_source_is_there(
    mill: Mill,
    capsys: pytest.CaptureFixture[str],
    expired: tuple[bool, ...],
    again: list[tuple[int, int]],
    kept: list[tuple[int, int]],
) -> None:
    days = computed_from(*expired)
    mill.edit(*DELAY)
    name = "site_breakdowns"
    assert [command for command in planned(capsys)["commands"] if name in command] == [
        *(f"lockstep backfill {name} --from {days[a]} --to {days[b]}" for a, b in again),
        *(
            f"# {name}: the ticks after {days[a]} up to {days[b]} keep the old definition: "
            "what they were computed from has expired"
            for a, b in kept
        ),
    ]


def test_a_view_whose_last_tick_cannot_be_computed_again_needs_another_name(
    mill: Mill, capsys: pytest.CaptureFixture[str]
) -> None:
    computed_from(True, True)
    mill.edit(*DELAY)
    told = [command for command in planned(capsys)["commands"] if "site_breakdowns" in command]
    assert [line.startswith("# ") for line in told] == [True, True]
    assert told[1].endswith("so live ticks stay refused: declare what is new under another name")


def test_without_a_lake_nobody_knows_which_ticks_can_be_computed_again(
    mill: Mill, capsys: pytest.CaptureFixture[str]
) -> None:
    computed_from(False)
    (Settings.load().home / "catalog.db").unlink()
    mill.edit(*DELAY)
    assert "lockstep backfill site_breakdowns --from … --to …" in planned(capsys)["commands"]


def test_an_edited_function_is_refused_as_long_as_a_model_may_have_been_trained_with_it(
    mill: Mill, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mill.edit(*SOURCE)
    assert main(["plan"]) == 3
    told = capsys.readouterr()
    assert told.out.startswith("REFUSED: reading cannot be merged as it is (1 definition changed)\n")
    assert "such as reading_v2" in told.out
    assert told.err.startswith("error: not as it is: reading\n")
    # With a registry it is known.
    settings = Settings.load()
    settings.home.mkdir(parents=True)
    (settings.home / "mlflow.db").touch()
    trained: dict[str, Any] = {}
    registry = SimpleNamespace(models_in_use=lambda *_: trained)  # MLflow takes seconds to import
    monkeypatch.setitem(sys.modules, "lockstep.training.registry", registry)
    plan = planned(capsys)
    assert plan["models"] == "none in use: no version of pump_failure that can be read has an alias"
    assert [(s["name"], s["consequence"]) for s in plan["subjects"]] == [("reading", "register")]
    definitions = read_definitions(work_tree("mill"), find_repository("mill"), "mill")
    assert definitions is not None
    trained["pump_failure 2 (champion)"] = definitions.contract
    # It was trained with the new source: somebody else's edit, and nothing of this one's.
    assert planned(capsys)["refused"] == []


def test_two_folders_are_compared_without_git(mill: Mill, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(mill.root / "mill", tmp_path / "old" / "mill")
    shutil.rmtree(mill.root / ".git")
    mill.edit(*DELAY)
    assert planned(capsys, "--from", str(tmp_path / "old"))["changed_views"] == ["site_breakdowns"]
    assert main(["plan"]) == 2
    assert "is in no git repository\n\nHint: name two folders that hold the package" in capsys.readouterr().err


def test_what_git_refuses_is_said_in_its_words(
    mill: Mill, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert main(["plan"]) == 2
    assert "dubious ownership" in capsys.readouterr().err


def test_a_revision_that_is_not_there_or_does_not_import_is_said_with_its_place(
    mill: Mill, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--from", "nowhere"]) == 2
    assert f"'nowhere' is no folder, {mill.root} has no such revision" in capsys.readouterr().err
    mill.edit("views/pump_file.py", "hours(1)", "hours(5)")
    mill.commit()
    assert main(["plan"]) == 2
    told = capsys.readouterr().err
    assert "mill/views/pump_file.py:" in told
    assert "does not divide a day into whole ticks" in told


def test_a_use_case_that_the_old_revision_does_not_have_is_all_new(
    mill: Mill, capsys: pytest.CaptureFixture[str]
) -> None:
    new = mill.git("rev-parse", "HEAD")
    mill.git("checkout", "-q", "--orphan", "empty")
    mill.git("rm", "-rqf", "--cached", ".")
    (mill.root / "README").write_text("nothing yet")
    mill.git("add", "README")
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@e", "commit", "-qm", "empty"], cwd=mill.root, check=True
    )
    plan = planned(capsys, "--from", "empty", "--to", new)
    assert plan["changed_views"] == ["pump_vibration", "site_breakdowns", "pump_file", "reading"]
    assert plan["models"].endswith("has no definitions yet")
    assert plan["refused"] == []


def test_links_and_attributes_of_the_repository_take_nothing_away(
    mill: Mill, capsys: pytest.CaptureFixture[str]
) -> None:
    (mill.root / "hostname").symlink_to("/etc/hostname")
    (mill.root / "mill" / "alias").symlink_to("../../nowhere")
    (mill.root / ".gitattributes").write_text("mill/on_demand export-ignore\n")
    mill.commit()
    index = (mill.root / ".git/index").read_bytes()
    mill.edit(*OWNER)
    assert [s["name"] for s in planned(capsys)["subjects"]] == ["pump_file"]
    assert (mill.root / ".git/index").read_bytes() == index


def test_definitions_that_take_too_long_to_import_are_said_to(
    mill: Mill, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mill.edit("definitions.py", "from mill", "import time; time.sleep(60)\nfrom mill")
    monkeypatch.setattr("lockstep.changes.revisions._SECONDS", 0.5)
    monkeypatch.setattr("pipelines._commands.plan.find_repository", lambda _: None)
    assert main(["plan", "--from", str(mill.root)]) == 2
    assert "its definitions are not imported after 0.5 s\n\nHint: " in capsys.readouterr().err


def test_what_is_secret_is_not_given_to_the_code_of_a_revision(
    mill: Mill, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("ARGO_TOKEN", "REDIS_PASSWORD", "REPORT_URL", "LEDGER_URL")
    for name in secrets:
        monkeypatch.setenv(f"LOCKSTEP_{name}", f"hidden-{name}" if "URL" not in name else f"sqlite:////hidden-{name}")
    text = (
        "import os; raise ValueError(sorted(value for value in os.environ.values() if 'hidden-' in value))\nfrom mill"
    )
    mill.edit("definitions.py", "from mill", text)
    assert main(["plan"]) == 2
    told = capsys.readouterr().err
    assert "ValueError: []" in told
    assert "hidden-" not in told.replace("'hidden-'", "")

"""The demo's home: held while it runs, emptied before, and nobody else's touched."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from demo_process import MANIFESTS, OTHERS_WARNINGS, ROOT

from lockstep.errors import BadInput
from lockstep.local.lock import hold
from pipelines._commands.progress import Lines
from pipelines._demo import Demo, Scale, run_demo

pytestmark = OTHERS_WARNINGS


def test_a_second_run_in_one_home_is_told_who_holds_it_and_touches_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "demo" / "report.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    with hold(tmp_path, "lockstep demo"):
        with pytest.raises(
            BadInput, match=rf"`lockstep demo` of .*, process {os.getpid()}, has held {tmp_path} since"
        ):
            run_demo(tmp_path, "feature_repo", MANIFESTS, Lines(print))
        command = [sys.executable, "-m", "pipelines", "run", "apply-definitions"]
        environment = os.environ | {"LOCKSTEP_HOME": str(tmp_path)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, kept.read_text()) == (2, "{}")
    assert "`lockstep demo` of " in done.stderr


def test_the_demo_does_not_delete_the_home_of_a_run_in_its_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    (folder / "runs").mkdir(parents=True)
    with hold(folder, "lockstep run promote"):
        with pytest.raises(BadInput, match=rf"`lockstep run promote` of .* has held {folder} since"):
            run_demo(tmp_path, "feature_repo", MANIFESTS, Lines(print))
        assert (folder / "runs").exists()


class EmptyDemo(Demo):
    """Only looks at what it is given."""

    def run(self) -> dict[str, Any]:
        home = self.settings.home
        with pytest.raises(BadInput, match=f"`lockstep demo` of .* has held {home} since"), hold(home, "lockstep run"):
            pass
        return {"found": sorted(path.name for path in home.iterdir())}


def test_the_demo_s_folder_is_emptied_and_held_while_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    (folder / "warehouse" / "deep").mkdir(parents=True)
    (folder / "ledger.db").write_text("rows")
    (folder / "elsewhere").symlink_to(tmp_path)
    report = run_demo(tmp_path, "feature_repo", MANIFESTS, Lines(print), Scale(), EmptyDemo)
    assert report["found"] == [".lock", ".lock.holder", "lockstep.toml", "logs", "redis"]
    assert json.loads((folder / "report.json").read_text()) == report


def test_a_folder_that_cannot_be_emptied_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "demo" / "warehouse").mkdir(parents=True)
    monkeypatch.setattr("pipelines._demo.home.shutil.rmtree", refuse)
    with pytest.raises(BadInput, match=r"demo cannot be emptied: .*Permission denied: .*warehouse"):
        run_demo(tmp_path, "feature_repo", MANIFESTS, Lines(print))


def test_a_link_in_the_place_of_the_demo_s_folder_is_refused_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "rows").write_text("1")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "demo").symlink_to(precious)
    with pytest.raises(BadInput, match=r"demo is a link, and what it leads to would be deleted"):
        run_demo(tmp_path / "home", "feature_repo", MANIFESTS, Lines(print))
    assert [path.name for path in precious.iterdir()] == ["rows"]

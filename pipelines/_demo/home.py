"""The demo's home: a folder that starts empty, a Redis of its own, and variables that are given back."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from lockstep.errors import BadInput
from lockstep.local.lock import HOLDER, LOCK, hold
from lockstep.local.redis import LocalRedis
from lockstep.settings import Settings
from pipelines._commands.progress import Reporter
from pipelines._demo.play import Demo, Scale
from pipelines._demo.world import Scenario, load_scenario
from pipelines._run.rendered import environment_kept

FOLDER = "demo"
REPORT = "report.json"
DEFAULT = Scale()


def run_demo(
    home: Path,
    use_case: str,
    manifests: Path,
    reporter: Reporter,
    scale: Scale = DEFAULT,
    demo: Callable[[Settings, Path, Reporter, Scenario, Scale], Demo] = Demo,
) -> dict[str, Any]:
    """Run the demo in `home`/demo, which is emptied first, and write `report.json` there.

    Raises:
        BadInput: something else is running in the same home or in its `demo`, or the use case has no demo, and nothing was
            touched; or the folder cannot be emptied.
        LockstepError: a step failed.
    """
    scenario = load_scenario(use_case)  # before anything is emptied
    folder = home / FOLDER
    if folder.is_symlink():
        raise BadInput(
            f"{folder} is a link, and what it leads to would be deleted",
            hint="remove it, or name another LOCKSTEP_HOME",
        )
    # The second is what `LOCKSTEP_HOME=.lockstep/demo lockstep run` holds.
    with hold(home, "lockstep demo"), hold(folder, "lockstep demo"):
        _empty(folder)
        # Whoever looks at the demo's home later sees it at the demo's own time.
        (folder / "lockstep.toml").write_text(f"clock_file = {json.dumps(str((folder / 'clock').resolve()))}\n")
        with LocalRedis(folder) as redis, environment_kept(folder):
            settings = redis.settings(_settings(folder, use_case))
            os.environ.update(settings.environment())
            report = demo(settings, manifests, reporter, scenario, scale).run()
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
        return report


def _empty(folder: Path) -> None:
    """Delete what an earlier demo left, but not the files by which the folder is held.

    Raises:
        BadInput: something cannot be deleted.
    """
    try:
        for entry in folder.iterdir():
            if entry.name in {LOCK, HOLDER}:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError as wrong:
        raise BadInput(
            f"{folder} cannot be emptied: {wrong}", hint="delete it yourself, or name another LOCKSTEP_HOME"
        ) from wrong


def _settings(folder: Path, use_case: str) -> Settings:
    given = Settings(
        home=folder,
        use_case=use_case,
        clock_file=folder / "clock",
        request_budget=timedelta(seconds=10),  # it shows what is right, not how fast: a busy machine may take its time
        request_time_limit=timedelta(hours=1),  # one tick: the demo moves the clock between a batch's rows
    )
    return given.resolved()

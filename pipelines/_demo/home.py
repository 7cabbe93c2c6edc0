"""The demo's home: a folder that starts empty, a Redis of its own, and variables that are given back."""

import json
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from lockstep.local.lock import hold
from lockstep.local.redis import LocalRedis
from lockstep.settings import Settings
from pipelines._demo.play import Demo, Scale
from pipelines._demo.world import load_scenario
from pipelines._progress import Reporter

FOLDER = "demo"
DEFAULT = Scale()


def run_demo(
    home: Path,
    use_case: str,
    manifests: Path,
    reporter: Reporter,
    scale: Scale = DEFAULT,
    demo: Callable[[Settings, Path, Reporter, ModuleType, Scale], Demo] = Demo,
) -> dict[str, Any]:
    """Run the demo in `home`/demo, which is emptied first, and write `report.json` there.

    Raises:
        BadInput: something else is running in the same home, or the use case has no demo; nothing was touched.
        LockstepError: a step failed.
    """
    scenario = load_scenario(use_case)  # before anything is emptied
    with hold(home, "lockstep demo"):
        folder = home / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        # Whoever looks at the demo's home later sees it at the demo's own time.
        (folder / "lockstep.toml").write_text(f"clock_file = {json.dumps(str((folder / 'clock').resolve()))}\n")
        with LocalRedis(folder) as redis, _environment_kept():
            settings = redis.settings(_settings(folder, use_case))
            os.environ.update(settings.environment())
            report = demo(settings, manifests, reporter, scenario, scale).run()
        (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        return report


def _settings(folder: Path, use_case: str) -> Settings:
    given = Settings(
        home=folder,
        use_case=use_case,
        clock_file=folder / "clock",
        request_time_limit=timedelta(hours=1),  # one tick: the demo moves the clock between a batch's rows
    )
    return given.resolved()


@contextmanager
def _environment_kept() -> Generator[None]:
    """Give the variables back as they were; a variable of the caller's may not steer the demo."""
    before = dict(os.environ)
    for name in [n for n in os.environ if n.startswith("LOCKSTEP_")]:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

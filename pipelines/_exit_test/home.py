"""The home of an incident: a folder in which every tool works, with a store that is there while somebody looks at it."""

import json
import os
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from lockstep.clock import MICROSECOND, parse_time
from lockstep.errors import BadInput
from lockstep.local.lock import hold
from lockstep.local.redis import LocalRedis
from lockstep.online.store import connect
from lockstep.settings import Settings
from pipelines._run.rendered import environment_kept

FOLDER = "exit-test"
_CLOCK = "clock"
_STOOD = "stood"
_STORE = "redis"
_ARTIFACTS = "mlartifacts"
_DATABASE = "mlflow.db"
APART = timedelta(hours=1)  # the requests of an hour come all at once
_BUDGET = timedelta(seconds=20)  # it shows what is right, not how fast


@contextmanager
def new_home(folder: Path, use_case: str) -> Generator[Settings]:
    """Give settings of a folder that starts empty, with a store and a clock of its own; what the store holds is kept."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own: dict[str, Any] = {
        "use_case": use_case,
        "clock_file": str((folder / _CLOCK).resolve()),
        "request_time_limit": APART.total_seconds(),
    }
    (folder / "lockstep.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in own.items()))
    with opened(folder) as settings:
        yield settings


@contextmanager
def opened(folder: Path, now: datetime | None = None) -> Generator[Settings]:
    """Start the store of a home, put its settings into the environment, and let its clock go on from where it stood.

    Args:
        folder: the home.
        now: what the clock says the first time.

    Raises:
        BadInput: there is no such home, or somebody has it open.
    """
    if not (folder / "lockstep.toml").exists():
        raise BadInput(f"{folder} holds no exit test", hint="`lockstep exit-test begin` prepares it")
    # Not the home itself: that is held by some of the tools that are run in it.
    with hold(folder / _STORE, "lockstep exit-test"), LocalRedis(folder) as redis, environment_kept(folder):
        stood = folder / _STOOD
        if stood.exists() or now is not None:
            at = parse_time(stood.read_text()) if stood.exists() else cast("datetime", now)
            # A clock file never moves back by itself, and days may have passed.
            (folder / _CLOCK).write_text(str((at - datetime.now(UTC)) // MICROSECOND))
        settings = redis.settings(Settings.load()).model_copy(update={"request_budget": _BUDGET})
        os.environ.update(settings.environment())
        try:
            yield settings
        finally:
            if now is not None:
                stood.write_text(settings.clock.now().isoformat())
            connect(settings).execute_command("SAVE")  # the server loads what lies in its folder when it starts


def copy_registry(state: Settings, folder: Path) -> None:
    """Copy the models of a state, so that what is logged to their runs does not go there.

    Raises:
        BadInput: they are not in its home.
    """
    source = state.home / _DATABASE
    if state.tracking_url != f"sqlite:///{source}":
        raise BadInput(
            f"the models of {state.home} are at {state.tracking_url}", hint="the demo keeps them in its home"
        )
    shutil.copytree(state.home / _ARTIFACTS, folder / _ARTIFACTS)
    before, after = ((home / _ARTIFACTS).resolve().as_uri() for home in (state.home, folder))
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(folder / _DATABASE)) as new, new:
        old.backup(new)
        for table, column in _texts(new):
            new.execute(
                f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE "{column}" LIKE ?',
                (before, after, f"{before}%"),
            )


def _texts(database: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()]
    columns = [
        (table, row) for table in tables for row in database.execute(f'PRAGMA table_info("{table}")').fetchall()
    ]
    return [(table, row[1]) for table, row in columns if row[2].startswith(("VARCHAR", "TEXT"))]

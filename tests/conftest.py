"""What every test starts from: settings of an empty home, and a clock that only the test moves."""

import signal
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import prometheus_client  # noqa: F401 - before Feast, which some tests import themselves: see lockstep/views/feast.py
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from lockstep.settings import Settings

# What a shell starts in the background ignores Ctrl-C, and hands that on to each process we start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Shrinking a failure may not take longer than reading it.
hypothesis.settings.register_profile(
    "lockstep", deadline=None, phases=[p for p in hypothesis.Phase if p is not hypothesis.Phase.explain]
)
hypothesis.settings.load_profile("lockstep")


@event.listens_for(Engine, "connect")
def let_the_disk_be_late(connection: object, _record: object) -> None:
    """Have SQLite not wait for the disk: that guards against a loss of power alone.

    A process that is killed leaves what it left. https://www.sqlite.org/pragma.html#pragma_synchronous
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


NOW = datetime(2018, 6, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    resolved = Settings(home=tmp_path / "home", clock_file=tmp_path / "home" / "clock").resolved()
    resolved.clock.advance_to(NOW)
    return resolved

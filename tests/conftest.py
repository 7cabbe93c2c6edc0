"""What every test starts from: settings of an empty home, and a clock that only the test moves."""

import signal
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import pytest

from lockstep.settings import Settings

# What a shell starts in the background ignores Ctrl-C, and hands that on to each process we start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Shrinking a failure may not take longer than reading it.
hypothesis.settings.register_profile(
    "lockstep", deadline=None, phases=[p for p in hypothesis.Phase if p is not hypothesis.Phase.explain]
)
hypothesis.settings.load_profile("lockstep")

NOW = datetime(2018, 6, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    resolved = Settings(home=tmp_path / "home", clock_file=tmp_path / "home" / "clock").resolved()
    resolved.clock.advance_to(NOW)
    return resolved

"""What every test starts from: settings of an empty home, and a clock that only the test moves."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lockstep.settings import Settings

NOW = datetime(2018, 6, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    resolved = Settings(home=tmp_path / "home", clock_file=tmp_path / "home" / "clock").resolved()
    resolved.clock.advance_to(NOW)
    return resolved

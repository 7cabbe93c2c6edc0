"""Settings whose ledger is on a real PostgreSQL; its tables are dropped after each test."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from lockstep.materialize.database import METADATA
from lockstep.settings import Settings
from tests.services.postgresql import binaries, postgresql


@pytest.fixture(scope="session")
def ledger_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed: no initdb on PATH nor below /usr/lib/postgresql")
    with postgresql(tmp_path_factory.mktemp("postgresql")) as url:
        yield url


@pytest.fixture
def settings(settings: Settings, ledger_url: str) -> Iterator[Settings]:
    yield settings.model_copy(update={"ledger_url": ledger_url})
    METADATA.drop_all(sa.create_engine(ledger_url, poolclass=sa.NullPool))

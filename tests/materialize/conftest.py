from collections.abc import Iterator

import pytest
import redis

from lockstep.lake import Lake
from lockstep.local.redis import LocalRedis
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.online.store import connect
from lockstep.settings import Settings
from tests.materialize.spend import SPEND


@pytest.fixture
def server(settings: Settings) -> Iterator[LocalRedis]:
    with LocalRedis(settings.home) as running:
        yield running


@pytest.fixture
def online(settings: Settings, server: LocalRedis) -> Settings:
    return server.settings(settings)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    opened = Lake.open(settings, "test")
    opened.ensure_table("spend", SPEND.schema, "event_timestamp")
    return opened


@pytest.fixture
def store(online: Settings) -> Iterator["redis.Redis"]:
    connection = connect(online)
    yield connection
    connection.close()


@pytest.fixture
def spend(online: Settings, lake: Lake, store: "redis.Redis") -> Materializer:
    return Materializer(online, lake, Ledger.open(online, "test"), store, "test", SPEND)

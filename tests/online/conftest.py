"""A Redis server of this folder's own, empty at the start of each test."""

from collections.abc import Iterator

import pytest
import redis

from lockstep.local import LocalRedis
from lockstep.online.store import connect
from lockstep.settings import Settings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    with LocalRedis(tmp_path_factory.mktemp("redis")) as local:
        yield local


@pytest.fixture
def store_settings(server: LocalRedis, settings: Settings) -> Settings:
    return server.settings(settings)


@pytest.fixture
def store(store_settings: Settings) -> Iterator[redis.Redis]:
    with connect(store_settings) as client:
        client.flushall()
        yield client

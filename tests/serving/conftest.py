"""A Redis for the modules that want one of their own, and a client of it, emptied for each test."""

from collections.abc import Iterator

import pytest
import redis

from lockstep.local import LocalRedis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    with LocalRedis(tmp_path_factory.mktemp("redis")) as local:
        yield local


@pytest.fixture
def client(server: LocalRedis) -> Iterator[redis.Redis]:
    with redis.Redis(host="127.0.0.1", port=server.port) as connection:
        connection.flushall()
        yield connection

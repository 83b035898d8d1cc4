"""One redis-server for all tests of this folder, and what they tell each other's keys apart by."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from redisserver import RedisServer, redis_server

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(Path(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"test{next(NUMBERS)}"

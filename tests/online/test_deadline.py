"""A read that is given up at a deadline ends then, wherever the deadline finds it."""

import asyncio
import time

import pytest
from stored_rows import NOON_US, make_contract, make_view

from lockstep.local import LocalRedis
from lockstep.online import store
from lockstep.online.reader import OnlineReader, ReadPlan
from lockstep.settings import Settings
from tests.kinds import hanging

SLOW_TURN = 0.002  # of the event loop, so that a deadline falls into each of its turns
SOCKET_SECONDS = 1.0


def test_a_deadline_is_kept_also_while_a_connection_is_opened(
    server: LocalRedis, store_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11's wait_for forgets that it was cancelled if what it waited for came in the same turn."""
    monkeypatch.setattr(store, "_TIME_LIMITS", {"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": 3.0})
    plan = ReadPlan.compile(make_contract(make_view()))

    async def read(deadline: float) -> float:
        client = store.connect_async(store_settings)
        loop = asyncio.get_running_loop()
        turning = True

        def turn() -> None:
            time.sleep(SLOW_TURN)
            if turning:
                loop.call_soon(turn)

        loop.call_soon(turn)
        started = loop.time()
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout_at(started + deadline):
                    await OnlineReader(client, plan).read({"customer_id": [1]}, [NOON_US])
            return loop.time() - started - deadline
        finally:
            turning = False
            await client.aclose()

    with hanging(server.pid):
        late = [asyncio.run(read(turns * SLOW_TURN / 2)) for turns in range(1, 40)]
    assert max(late) < SOCKET_SECONDS / 2

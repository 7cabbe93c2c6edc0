"""Which rows the served log takes where it does not take all: chosen by the request's id, and every row with a flag."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import orjson
import pytest
import redis
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from lockstep.local import LocalRedis
from lockstep.online.epoch import Epochs
from lockstep.online.reader import Reading, ViewRows
from lockstep.serving import log
from lockstep.serving.log import ServedLog
from lockstep.serving.log_rows import FLAGGED, UNIFORM, Served, chosen_rows, stream_key
from lockstep.serving.request import Request

PROJECT = "sampled"
rates = st.floats(0, 1)


def served(request_id: str, flags: Sequence[Sequence[str]] = ((), ())) -> Served:
    rows = len(flags)
    request = Request(request_id, [1] * rows, {"customer_id": [7] * rows}, [{}] * rows)
    epochs, read = Epochs("i", {}), ViewRows(["present"] * rows, [1] * rows, [1] * rows, {})
    reading = Reading(epochs, epochs, {"cards": read})
    return Served(request, 2, reading, np.zeros((rows, 1)), [0.5] * rows, flags, "c", shadow=False)


def share(request_id: str) -> float:
    """Where an id lies in [0, 1), by the digits of its hash."""
    return int(blake2b(request_id.encode(), digest_size=8).hexdigest(), 16) / 16**16


def chosen(request_id: str, rate: float) -> bool:
    return bool(chosen_rows(served(request_id), rate))


def test_the_same_requests_are_chosen_by_every_process_and_release() -> None:
    assert [n for n in range(40) if chosen(f"r-{n}", 0.25)] == [2, 11, 12, 13, 18, 21, 28, 29, 33, 34, 39]


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_share_of_requests_that_is_chosen_is_the_rate(rate: float) -> None:
    ids = 20_000
    deviation = (ids * rate * (1 - rate)) ** 0.5

    number = sum(chosen(f"request {n}", rate) for n in range(ids))

    assert abs(number - ids * rate) < 3 * deviation


@given(st.text(max_size=20), rates, rates)
def test_who_is_chosen_at_a_rate_is_chosen_at_every_greater_one(request_id: str, one: float, other: float) -> None:
    assert chosen(request_id, one) == (share(request_id) < one or one == 1)
    if chosen(request_id, min(one, other)):
        assert chosen(request_id, max(one, other))


def test_who_gives_all_requests_one_id_is_logged_wholly_or_not_at_all() -> None:
    assert [chosen("r-2", 0.25) for _ in range(9)] == [True] * 9
    assert [chosen("r-3", 0.25) for _ in range(9)] == [False] * 9


def test_all_are_chosen_at_one_and_none_at_zero() -> None:
    for n in range(200):
        assert chosen_rows(served(f"{n}"), 1.0) == [(0, UNIFORM), (1, UNIFORM)]
        assert chosen_rows(served(f"{n}"), 0.0) == []


@given(
    st.text(max_size=20), rates, st.lists(st.lists(st.sampled_from(("a:late", "b:missing")), max_size=2), min_size=1)
)
def test_a_request_is_chosen_whole_or_for_its_flagged_rows(
    request_id: str, rate: float, flags: list[list[str]]
) -> None:
    expected = (
        [(row, UNIFORM) for row in range(len(flags))]
        if chosen(request_id, rate)
        else [(row, FLAGGED) for row, of_row in enumerate(flags) if of_row]
    )

    assert chosen_rows(served(request_id, flags), rate) == expected


def logged(server: LocalRedis, client: redis.Redis, offered: Sequence[Served], rate: float) -> list[dict[str, Any]]:
    """Return the stream's rows after these were served."""

    async def run() -> ServedLog:
        async with redis.asyncio.Redis(host="127.0.0.1", port=server.port) as connection:
            served_log = ServedLog(connection, PROJECT, "m", rate)
            for each in offered:
                served_log.offer(each)
            await served_log.close()
            return served_log

    done = asyncio.run(run())
    rows = [orjson.loads(fields[log.ROW_FIELD]) for _, fields in client.xrange(stream_key(PROJECT))]
    assert (done.sent, done.dropped) == (len(rows), 0)
    assert {row["process"] for row in rows} <= {done.process}
    return rows


def test_the_rows_that_are_logged_are_numbered_without_gaps_and_say_why(
    server: LocalRedis, client: redis.Redis
) -> None:
    offered = [served(f"{n}", [(), ("cards:late",) if n % 5 == 0 else (), ()]) for n in range(300)]

    rows = logged(server, client, offered, 0.3)

    assert [row["counter"] for row in rows] == list(range(1, len(rows) + 1))
    expected = [
        (f"{n}", row, why, list(each.flags[row]))
        for n, each in enumerate(offered)
        for row, why in chosen_rows(each, 0.3)
    ]
    assert [(row["request_id"], row["row"], row["why"], row["flags"]) for row in rows] == expected
    assert {row["request_id"] for row in rows if row["why"] == UNIFORM} == {
        f"{n}" for n in range(300) if share(f"{n}") < 0.3
    }
    flagged = [row for row in rows if row["why"] == FLAGGED]
    assert {(row["row"], tuple(row["flags"])) for row in flagged} == {(1, ("cards:late",))}
    assert len({row["request_id"] for row in rows if row["flags"]}) == 60, "every flagged row is there"


@given(st.text(max_size=20), rates, st.lists(st.booleans(), min_size=1))
def test_of_a_request_that_is_refused_the_rejected_rows_are_chosen_alone(
    request_id: str, rate: float, rejected: list[bool]
) -> None:
    plain = served(request_id, [("rejected",) if out else () for out in rejected])
    lacks = {row: "cards:nb" for row, out in enumerate(rejected) if out}
    refused = replace(plain, scores=[None] * len(rejected), rejected=lacks)

    why = UNIFORM if chosen(request_id, rate) else FLAGGED
    assert chosen_rows(refused, rate) == [(row, why) for row in lacks]


def test_at_a_rate_of_zero_the_flagged_rows_are_logged_alone(server: LocalRedis, client: redis.Redis) -> None:
    rows = logged(server, client, [served("plain"), served("odd", [(), ("a:late",)]), served("plain too")], 0.0)

    assert [(row["request_id"], row["row"], row["why"], row["counter"]) for row in rows] == [("odd", 1, FLAGGED, 1)]


def test_what_is_logged_beside_the_rows_is_that_of_the_row(server: LocalRedis, client: redis.Redis) -> None:
    both = served("odd", [(), ("a:late",)])
    both.request.times_us[1] = 11
    both.reading.views["cards"].event_us[1] = 12
    both.vectors[1] = 13.0

    (row,) = logged(server, client, [both], 0.0)

    assert (row["request_time"], row["views"][0]["event_timestamp"], row["vector"]) == (11, 12, [13.0])

"""A view `spend` of cards, its rows in the lake and what is served of them."""

from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pytest
import redis

from lockstep.clock import parse_time, to_micros
from lockstep.contract import FeatureContract, TrainingCut, stored_view
from lockstep.lake import Lake
from lockstep.lake.snapshots import TICK
from lockstep.materialize import wholeness
from lockstep.online.reader import read_online
from lockstep.settings import Settings
from lockstep.views import Entity, Source, count, days, hours, soft, windowed_view

T = parse_time("2018-06-01T12:00:00Z")
SPEND = windowed_view(
    name="spend",
    entity=Entity("card", "card", "int64", "o"),
    source=Source("payments", "at", "seen", "o"),
    measures=[count("nb")],
    windows=[days(1)],
    every=hours(1),
    ttl=days(3),
    freshness=soft(hours(3)),
    owner="o",
)
VIEW = stored_view(SPEND)
TOGETHER = (16, 9_524, 19_032, 28_540)
"""Cards of which all rows are in one slot of a cluster."""
CONTRACT = FeatureContract(
    project="test",
    feature_service="s",
    join_keys=VIEW.join_keys,
    request_inputs=(),
    features=(),
    views=(VIEW,),
    on_demand=(),
    cut=TrainingCut(tables=(), spine_hash="h", known_at=T),
)


def tick(lake: Lake, hour: int, **counts: int) -> None:
    """Append a tick: `c7=3` says that card 7 has 3 payments."""
    at = T + timedelta(hours=hour)
    rows = [
        {"card": int(card[1:]), "nb_1d": nb, "event_timestamp": at, "created_timestamp": at + timedelta(minutes=5)}
        for card, nb in counts.items()
    ]
    lake.append("spend", pa.Table.from_pylist(rows, SPEND.schema), {TICK: str(to_micros(at))})


def served(online: Settings, *cards: int) -> list[int | None]:
    times = [to_micros(T + timedelta(hours=9))] * len(cards)
    return read_online(online, CONTRACT, {"card": list(cards)}, times).views["spend"].values["nb_1d"]


def contents(store: "redis.Redis") -> dict[bytes, dict[bytes, bytes]]:
    """Return every row of the store."""
    return {key: store.hgetall(key) for key in store.scan_iter() if not key.startswith(b"lockstep:")}


def copy_of(store: "redis.Redis") -> dict[bytes, bytes]:
    """Return a copy of all that a store holds, for `bring_back`."""
    return {key: store.dump(key) for key in store.scan_iter()}


def bring_back(store: "redis.Redis", copy: dict[bytes, bytes]) -> None:
    """Let a store come back from a copy of itself."""
    store.flushall()
    for key, value in copy.items():
        store.restore(key, 0, value)


def tell_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the store's server keep its run to itself, so that one that comes back from a copy is no other."""
    told = wholeness.place_of
    monkeypatch.setattr(wholeness, "place_of", lambda *given: replace(told(*given), run="", line=""))

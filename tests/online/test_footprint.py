"""Bytes an entity and a view, as a real Redis says them."""

import json

import numpy as np
import pyarrow as pa
import pytest
import redis

from lockstep.clock import parse_time
from lockstep.contract import stored_view
from lockstep.lake import Lake
from lockstep.online.footprint import Footprint, estimate, footprints
from lockstep.online.layout import fields_of
from lockstep.online.writer import write_rows
from lockstep.settings import Settings
from lockstep.views import load_use_case
from pipelines.cli import main

T = parse_time("2018-06-01T12:00:00Z")
USE_CASE = load_use_case("feature_repo")
SPEND, PROFILE = USE_CASE.view("customer_spend"), USE_CASE.view("customer_profile")


@pytest.fixture
def lake(store_settings: Settings) -> Lake:
    return Lake.open(store_settings, "fraud")


def put(lake: Lake, store: redis.Redis, view, customers: range) -> None:
    """Put a row of every customer into the lake, and online those whose number is no multiple of ten."""
    times = {"event_timestamp": T, "created_timestamp": T}
    lake.ensure_table(view.table, view.schema)
    for part in (customers, customers):  # a key has many rows in the lake
        lake.append(view.table, pa.Table.from_pylist([{"customer_id": n, **times} for n in part], view.schema))
    online = pa.Table.from_pylist([{"customer_id": n, **times} for n in customers if n % 10], view.schema)
    write_rows(store, "fraud", stored_view(view), online)


def used(store: redis.Redis) -> int:
    return sum(store.memory_usage(key, samples=0) for key in store.scan_iter())


def measured(settings: Settings, lake: Lake, store: redis.Redis, sample: int) -> Footprint:
    (found,) = footprints(settings, USE_CASE, lake, store, sample)
    return found


def test_where_every_key_is_measured_the_total_is_the_servers_own(
    store_settings: Settings, lake: Lake, store: redis.Redis
) -> None:
    put(lake, store, SPEND, range(600))
    put(lake, store, PROFILE, range(300))
    store.hset(next(iter(store.scan_iter())), "_ts:other", "x" * 100)

    found = measured(store_settings, lake, store, 1_000)

    assert (found.entity, found.keys, found.sampled) == ("customer", 600, 600)
    assert (found.whole.total, found.whole.error, found.whole.found) == (used(store), 0, 540)
    assert (found.views[SPEND.name].found, found.views[PROFILE.name].found, found.others.found) == (540, 270, 1)
    parts = [*found.views.values(), found.others]
    assert sum(part.total for part in parts) == pytest.approx(found.whole.total, abs=2)
    assert found.views[SPEND.name].total > found.views[PROFILE.name].total > found.others.total > 100


def test_a_views_part_is_its_share_of_names_and_values(
    store_settings: Settings, lake: Lake, store: redis.Redis
) -> None:
    put(lake, store, SPEND, range(1, 2))
    alone = used(store)
    put(lake, store, PROFILE, range(1, 2))
    found = measured(store_settings, lake, store, 10)
    (key,) = store.scan_iter()
    sizes = {f: len(f) + len(v) for f, v in store.hgetall(key).items()}
    own = sum(sizes[field] for field in fields_of(stored_view(SPEND)))
    assert found.whole.per_key == used(store) > alone
    assert found.views[SPEND.name].per_key == pytest.approx(own / sum(sizes.values()) * used(store))


def test_a_sample_says_about_the_same_and_how_far_it_may_be_off(
    store_settings: Settings, lake: Lake, store: redis.Redis
) -> None:
    put(lake, store, SPEND, range(3_000))
    found = measured(store_settings, lake, store, 400)
    assert (found.keys, found.sampled) == (3_000, 400)
    assert 0 < found.whole.error < found.whole.total / 10
    assert abs(found.whole.total - used(store)) < 2 * found.whole.error


def test_the_error_holds_the_truth_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(3)
    sizes = rng.lognormal(5, 0.4, 2_000) * (rng.random(2_000) > 0.2)
    inside = 0
    for _ in range(400):
        found = estimate(2_000, rng.choice(sizes, 300, replace=False).tolist())
        inside += abs(found.total - sizes.sum()) <= found.error
    assert 365 <= inside <= 395


def test_nothing_online_is_nothing(store_settings: Settings, lake: Lake, store: redis.Redis) -> None:
    assert footprints(store_settings, USE_CASE, lake, store) == []
    put(lake, store, SPEND, range(10, 11))
    assert measured(store_settings, lake, store, 10).whole.total == 0


def test_the_command_says_bytes_a_key_and_in_all(
    store_settings: Settings,
    lake: Lake,
    store: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("LOCKSTEP_USE_CASE", raising=False)
    for name, value in store_settings.environment().items():
        monkeypatch.setenv(name, value)
    put(lake, store, SPEND, range(100))
    assert main(["doctor", "--bytes", "--sample", "50"]) == 0
    first, whole, spend = capsys.readouterr().out.splitlines()
    assert first == "customer: 50 of 100 keys measured"
    assert whole.startswith("  whole hash ")
    assert spend.startswith("  customer_spend ")
    assert main(["doctor", "--bytes", "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert document["whole"]["total"] == used(store)
    assert main(["doctor", "customer_spend", "--bytes"]) == 2

"""`feast materialize` with our engine: the bytes of Feast's own, the newest row in any order, and what is refused."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feast
import pandas as pd
import pytest
import redis
from click.testing import CliRunner
from feast import types
from feast.cli.cli import cli
from feast.feature_view import FeatureView
from feast.on_demand_feature_view import PandasTransformation

from lockstep.errors import BadInput, NotYetSupported, SchemaDrift
from lockstep.local.redis import LocalRedis
from lockstep.online.layout import pair_field

ENGINE = "lockstep.offline.feast_engine.LockstepEngine"
T = datetime(2018, 6, 1, 12, tzinfo=UTC)
CARD = feast.Entity(name="card", join_keys=["card_id"], value_type=feast.ValueType.INT64)
SHOP = feast.Entity(name="shop", join_keys=["shop_id"], value_type=feast.ValueType.STRING)
SCHEMA = {
    "n": types.Int64,
    "mean": types.Float64,
    "name": types.String,
    "last": types.Array(types.Int64),
    "at": types.UnixTimestamp,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    with LocalRedis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def store(server: LocalRedis) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


def frame(hours: int = 0, created: int = 5, count: int = 20, **changed: Any) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "card_id": range(count),
            "shop_id": [f"shop {n % 3}" for n in range(count)],
            "n": [n + hours for n in range(count)],
            "mean": [n / 7 for n in range(count)],
            "name": [None if n == 2 else f"n{n}" for n in range(count)],
            "last": [[n, n + 1] for n in range(count)],
            "at": [T + timedelta(seconds=n) for n in range(count)],
            "event_timestamp": [T + timedelta(hours=hours, microseconds=n) for n in range(count)],
            "made": [T + timedelta(hours=hours, minutes=created)] * count,
        }
    )
    return rows.assign(**changed)


def save(rows: pd.DataFrame, path: Path) -> None:
    rows.to_parquet(path, coerce_timestamps="us", allow_truncated_timestamps=True)


def project(
    folder: Path, server: LocalRedis, engine: str | dict[str, Any] = ENGINE, **config: Any
) -> feast.FeatureStore:
    folder.mkdir(exist_ok=True)
    settings: dict[str, Any] = {
        "project": "shop",
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{folder}/registry.db"},
        "offline_store": {"type": "duckdb"},
        "online_store": {"type": "redis", "connection_string": f"127.0.0.1:{server.port}"},
        "batch_engine": engine,
        "entity_key_serialization_version": 3,
    } | config
    return feast.FeatureStore(config=feast.RepoConfig.model_validate(settings))


def view_of(path: Path, rows: pd.DataFrame, **given: Any) -> FeatureView:
    save(rows, path)
    source = feast.FileSource(
        name="rows",
        path=str(path),
        timestamp_field="event_timestamp",
        created_timestamp_column=given.pop("created", "made"),
    )
    keys = [feast.Field(name="card_id", dtype=types.Int64), feast.Field(name="shop_id", dtype=types.String)]
    schema = [feast.Field(name=name, dtype=dtype) for name, dtype in (given.pop("schema", None) or SCHEMA).items()]
    options: dict[str, Any] = {"entities": [CARD, SHOP], "schema": [*keys, *schema], "ttl": timedelta(0)} | given
    return FeatureView(name="spend", source=source, **options)


def contents(store: redis.Redis) -> dict[bytes, dict[bytes, bytes]]:
    """What is stored, without our own field."""
    ours = pair_field("spend")
    return {key: {f: v for f, v in store.hgetall(key).items() if f != ours} for key in store.scan_iter()}


def materialize(feature_store: feast.FeatureStore, hours: int = 0, until: int = 9) -> None:
    start = T + timedelta(hours=hours) - timedelta(seconds=1)
    feature_store.materialize(start, T + timedelta(hours=until), feature_views=["spend"])


@pytest.mark.filterwarnings("ignore")
def test_what_is_stored_is_what_feasts_own_engine_stores(
    tmp_path: Path, server: LocalRedis, store: redis.Redis
) -> None:
    found = []
    for engine in ("local", ENGINE):
        store.flushall()
        ours = project(tmp_path / engine, server, engine)
        ours.apply([CARD, SHOP, view_of(tmp_path / "rows.parquet", pd.concat([frame(), frame(1, count=5)]))])
        materialize(ours)
        found.append(contents(store))
        keys = [{"card_id": 3, "shop_id": "shop 0"}, {"card_id": 7, "shop_id": "shop 1"}]
        answers = ours.get_online_features(["spend:n", "spend:last", "spend:name"], keys).to_dict()
        assert (answers["n"], answers["name"], answers["last"]) == ([4, 7], ["n3", "n7"], [[3, 4], [7, 8]])
    assert found[0] == found[1]
    assert len(found[0]) == 20


@pytest.mark.filterwarnings("ignore")
def test_ranges_in_any_order_end_at_the_newest_row_and_a_correction_lands(
    tmp_path: Path, server: LocalRedis, store: redis.Redis
) -> None:
    ours = project(tmp_path / "ours", server)
    view = view_of(tmp_path / "rows.parquet", frame(2))
    ours.apply([CARD, SHOP, view])
    materialize(ours)
    newest = contents(store)
    save(frame(0), tmp_path / "rows.parquet")
    materialize(ours)
    assert contents(store) == newest
    save(frame(2, created=6, n=[100] * 20), tmp_path / "rows.parquet")
    materialize(ours)
    answers = ours.get_online_features(["spend:n"], [{"card_id": 3, "shop_id": "shop 0"}]).to_dict()
    assert answers["n"] == [100]


@pytest.mark.filterwarnings("ignore")
def test_a_view_without_entities_and_without_a_created_time(
    tmp_path: Path, server: LocalRedis, store: redis.Redis
) -> None:
    """Feast 0.67's own engine fails on such a view: it looks for the column of the entity that there is not."""
    ours = project(tmp_path / "ours", server)
    rows = frame(count=1, n=[7]).drop(columns=["card_id", "shop_id", "made"])
    rows["event_timestamp"] = rows["event_timestamp"].dt.tz_localize(None)  # UTC, to Feast
    save(rows, tmp_path / "rows.parquet")
    source = feast.FileSource(name="r", path=str(tmp_path / "rows.parquet"), timestamp_field="event_timestamp")
    ours.apply([FeatureView(name="spend", source=source, schema=[feast.Field(name="n", dtype=types.Int64)])])
    materialize(ours)
    assert ours.get_online_features(["spend:n"], [{"__dummy_id": ""}]).to_dict()["n"] == [7]


@pytest.mark.filterwarnings("ignore")
def test_the_command_line_goes_the_same_way(
    tmp_path: Path, server: LocalRedis, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    view_of(tmp_path / "rows.parquet", frame())
    (tmp_path / "feature_store.yaml").write_text(
        "project: shop\nprovider: local\nregistry: registry.db\noffline_store: {type: duckdb}\n"
        f"online_store: {{type: redis, connection_string: '127.0.0.1:{server.port}'}}\n"
        f"batch_engine: {{type: {ENGINE}}}\nentity_key_serialization_version: 3\n"
    )
    (tmp_path / "definitions.py").write_text(
        "from datetime import timedelta\nimport feast\nfrom feast import types\n"
        "card = feast.Entity(name='card', join_keys=['card_id'], value_type=feast.ValueType.INT64)\n"
        f"rows = feast.FileSource(path={str(tmp_path / 'rows.parquet')!r}, timestamp_field='event_timestamp')\n"
        "spend = feast.FeatureView(name='spend', entities=[card], ttl=timedelta(0), source=rows, schema=["
        "feast.Field(name='card_id', dtype=types.Int64), feast.Field(name='n', dtype=types.Int64)])\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command adds the repository, and imports from it
    monkeypatch.chdir(Path.cwd())  # and it goes there and stays, but for this
    for arguments in (["apply"], ["materialize", "2018-06-01T00:00:00", "2018-06-02T00:00:00"]):
        done = CliRunner().invoke(cli, ["--chdir", str(tmp_path), *arguments])
        assert done.exit_code == 0, done.output
    monkeypatch.delitem(sys.modules, "definitions")
    assert len(contents(store)) == 20
    assert pair_field("spend") in store.hgetall(next(store.scan_iter()))


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "another store": ({"online_store": {"type": "sqlite", "path": "online.db"}}, BadInput, "not Redis"),
    "a ttl of keys": ({"online_store": {"key_ttl_seconds": 60}}, NotYetSupported, "would expire all"),
    "rows that go back": ({"online_store": {"skip_dedup": True}}, NotYetSupported, "older rows overwrite newer ones"),
    "a cluster that is none": ({"online_store": {"redis_type": "redis_cluster"}}, BadInput, "is no Redis Cluster"),
    "options": ({"batch_engine": {"type": ENGINE, "workers": 3}}, BadInput, "the options workers"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REFUSED)
def test_a_configuration_that_cannot_be_served_is_refused(tmp_path: Path, server: LocalRedis, case: str) -> None:
    changed, error, message = REFUSED[case]
    config = dict(changed)
    if "online_store" in config and "type" not in config["online_store"]:
        config["online_store"] |= {"type": "redis", "connection_string": f"127.0.0.1:{server.port}"}
    engine = config.pop("batch_engine", ENGINE)
    plain = project(tmp_path / "ours", server, "local")
    plain.apply([CARD, SHOP, view_of(tmp_path / "rows.parquet", frame())])
    with pytest.raises(error, match=message):
        materialize(project(tmp_path / "ours", server, engine, **config))


@pytest.mark.filterwarnings("ignore")
def test_rows_that_cannot_be_stored_are_refused_and_the_watermark_stays(
    tmp_path: Path, server: LocalRedis, store: redis.Redis
) -> None:
    ours = project(tmp_path / "ours", server)
    ours.apply([CARD, SHOP, view_of(tmp_path / "rows.parquet", frame())])
    for changed, error, message in (
        ({"card_id": [None, *range(19)]}, BadInput, "1 rows of spend have no card_id"),
        ({"mean": ["much"] * 20}, SchemaDrift, "mean is .*string in its source, float64 in the registry"),
    ):
        save(frame(**changed).astype({"card_id": "Int64"}), tmp_path / "rows.parquet")
        with pytest.raises(error, match=message):
            materialize(ours)
    assert contents(store) == {}
    assert ours.get_feature_view("spend").materialization_intervals == []


@pytest.mark.filterwarnings("ignore")
def test_what_another_engine_would_do_is_refused_not_left_out(tmp_path: Path, server: LocalRedis) -> None:
    ours = project(tmp_path / "ours", server)
    rows = view_of(tmp_path / "rows.parquet", frame())
    view = feast.BatchFeatureView(
        name="spend",
        entities=[CARD, SHOP],
        schema=[*rows.schema],
        source=rows.batch_source,
        mode="pandas",
        feature_transformation=PandasTransformation(lambda rows: rows, "unchanged"),
        online=True,
    )
    ours.apply([CARD, SHOP, view])
    with pytest.raises(NotYetSupported, match="spend has a transformation"):
        materialize(ours)


@pytest.mark.filterwarnings("ignore")
def test_a_type_without_one_way_to_store_it_is_named(tmp_path: Path, server: LocalRedis) -> None:
    ours = project(tmp_path / "ours", server)
    rows = frame(m=[{"a": 1}] * 20)
    ours.apply([CARD, SHOP, view_of(tmp_path / "rows.parquet", rows, schema={"m": types.Map})])
    with pytest.raises(NotYetSupported, match="m: the online store cannot hold Feast's MAP"):
        materialize(ours)


@pytest.mark.filterwarnings("ignore")
def test_a_feature_named_like_a_time_of_ours_is_not_taken_for_it(tmp_path: Path, server: LocalRedis) -> None:
    ours = project(tmp_path / "ours", server)
    rows = frame(created_timestamp=[T] * 20).drop(columns=["made"])
    schema = {"created_timestamp": types.UnixTimestamp}
    ours.apply([CARD, SHOP, view_of(tmp_path / "rows.parquet", rows, schema=schema, created="")])
    with pytest.raises(NotYetSupported, match="spend has a column created_timestamp besides its times"):
        materialize(ours)


@pytest.mark.filterwarnings("ignore")
def test_columns_are_found_under_the_names_that_the_source_maps(
    tmp_path: Path, server: LocalRedis, store: redis.Redis
) -> None:
    found = []
    for engine in ("local", ENGINE):
        store.flushall()
        ours = project(tmp_path / engine, server, engine)
        save(frame().rename(columns={"n": "number", "card_id": "card"}), tmp_path / "rows.parquet")
        source = feast.FileSource(
            name="rows",
            path=str(tmp_path / "rows.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="made",
            field_mapping={"number": "n", "card": "card_id"},
        )
        schema = [feast.Field(name="card_id", dtype=types.Int64), feast.Field(name="n", dtype=types.Int64)]
        ours.apply([CARD, FeatureView(name="spend", entities=[CARD], schema=schema, source=source, ttl=timedelta(0))])
        materialize(ours)
        found.append(contents(store))
    assert found[0] == found[1]
    assert len(found[1]) == 20

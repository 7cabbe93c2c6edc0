"""What is wrong in Feast 0.67's own offline stores, as tests of the right answer that are expected to fail.

Each is a reason for a store of our own. The day one passes, pytest reports it as a failure here (`strict`), and we look again
at what we do ourselves. Ours passes the same questions in `test_conformance.py`.
"""

import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feast
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import types
from feast.infra.data_sources.contrib.iceberg_catalog.iceberg_source import IcebergSource
from ibis.common.exceptions import IbisTypeError
from pyiceberg.io.pyarrow import UnsupportedPyArrowTypeException

from lockstep.lake import Lake
from lockstep.settings import Settings

T = datetime(2018, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
UTC_US = pa.timestamp("us", tz="UTC")
TIMES = ("event_timestamp", "created_timestamp")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Feast's stores use what pandas, ibis and dask deprecate
]


def upstream(reason: str, fails: type[BaseException] = AssertionError) -> pytest.MarkDecorator:
    return pytest.mark.xfail(reason=f"Feast 0.67: {reason}", raises=fails, strict=True)


NOT_RAISED = pytest.fail.Exception


class Stock:
    """A stock Feast store of one view over a Parquet file, or over an Iceberg table of the lake."""

    def __init__(self, home: Path, kind: str) -> None:
        self._home, self._kind = home, kind

    def open(
        self, rows: pa.Table, keys: tuple[str, ...] = ("card",), ttl: timedelta = timedelta(0)
    ) -> feast.FeatureStore:
        config = {
            "project": "stock",
            "provider": "local",
            "registry": {"registry_type": "sql", "path": f"sqlite:///{self._home}/registry.db"},
            "offline_store": {"type": "dask" if self._kind == "dask" else "duckdb"},
            "online_store": None,
            "entity_key_serialization_version": 3,
        }
        kinds = {pa.int64(): types.Int64, pa.float64(): types.Float64, pa.string(): types.String}
        columns = [field for field in rows.schema if field.name not in TIMES]
        entities = [
            feast.Entity(name=key, join_keys=[key], value_type=kinds[rows.schema.field(key).type].to_value_type())
            for key in keys
        ]
        view = feast.FeatureView(
            name="spend",
            entities=entities,
            ttl=ttl,
            schema=[feast.Field(name=field.name, dtype=kinds[field.type]) for field in columns],
            source=self._source(rows),
        )
        store = feast.FeatureStore(config=feast.RepoConfig.model_validate(config))
        store.apply([*entities, view])
        return store

    def _source(self, rows: pa.Table) -> Any:
        times = {"timestamp_field": TIMES[0], "created_timestamp_column": TIMES[1]}
        if self._kind != "iceberg":
            path = self._home / "rows.parquet"
            pq.write_table(rows, path)
            return feast.FileSource(name="rows", path=str(path), **times)
        settings = Settings(home=self._home).resolved()
        lake = Lake.open(settings, "stock")
        lake.ensure_table("spend", rows.schema, "event_timestamp")
        lake.append("spend", rows)
        return IcebergSource(
            warehouse=settings.warehouse,
            namespace="stock",
            table="spend",
            catalog_type="sql",
            catalog_name="lake",
            catalog_properties={"uri": settings.catalog_uri},
            **times,
        )


@pytest.fixture
def stock(tmp_path):
    return lambda kind: Stock(tmp_path, kind)


def rows(*given: tuple[int, int | None, datetime], feature: str = "n") -> pa.Table:
    card, n, time = zip(*given, strict=True)
    times = pa.array(time, UTC_US)
    return pa.table(
        {"card": pa.array(card, pa.int64()), feature: pa.array(n, pa.int64()), TIMES[0]: times, TIMES[1]: times}
    )


def spine(*asked: tuple[int, datetime]) -> pd.DataFrame:
    card, time = zip(*asked, strict=True)
    return pd.DataFrame({"card": card, "event_timestamp": pd.to_datetime(list(time), utc=True)})


def answers(store: feast.FeatureStore, entity_df: Any, feature: str = "n") -> dict[Any, Any]:
    found = store.get_historical_features(entity_df, [f"spend:{feature}"]).to_arrow()
    return dict(zip(found["card"].to_pylist(), found[feature].to_pylist(), strict=True))


def test_the_stock_stores_answer_a_plain_question(stock) -> None:
    """So that what fails below fails for its reason."""
    for kind in ("duckdb", "dask"):
        assert answers(stock(kind).open(rows((1, 5, T), (2, 6, T))), spine((1, T), (2, T))) == {1: 5, 2: 6}


@upstream("the Dask store, the default, drops an entity row whose feature has expired")
def test_dask_keeps_a_row_without_an_answer(stock) -> None:
    store = stock("dask").open(rows((1, 5, T), (2, 6, T)), ttl=HOUR)
    assert answers(store, spine((1, T), (2, T + 3 * HOUR))) == {1: 5, 2: None}


@upstream("the Dask store collapses equal entity rows, and with them their labels")
def test_dask_keeps_duplicates_of_the_spine(stock) -> None:
    asked = spine((1, T), (1, T), (2, T)).assign(label=[0, 1, 0])
    found = stock("dask").open(rows((1, 5, T), (2, 6, T))).get_historical_features(asked, ["spend:n"]).to_arrow()
    assert sorted(found["label"].to_pylist()) == [0, 0, 1]


@upstream("the Dask store answers a column of the spine for a feature of its name", NOT_RAISED)
def test_dask_refuses_a_spine_with_a_feature_s_name(stock) -> None:
    store = stock("dask").open(rows((1, 5, T)))
    with pytest.raises(Exception, match="n"):
        store.get_historical_features(spine((1, T)).assign(n=[77]), ["spend:n"]).to_arrow()


@upstream("the DuckDB store drops columns that end in _y", IbisTypeError)
def test_duckdb_knows_features_that_end_in_y(stock) -> None:
    store = stock("duckdb").open(rows((1, 5, T), feature="n_y"))
    assert answers(store, spine((1, T)), "n_y") == {1: 5}


@upstream("the DuckDB store takes SQL for a data frame", AttributeError)
def test_duckdb_takes_sql_for_entity_rows(stock) -> None:
    store = stock("duckdb").open(rows((1, 5, T)))
    assert answers(store, f"SELECT 1 AS card, TIMESTAMPTZ '{T.isoformat()}' AS event_timestamp") == {1: 5}


@upstream("to_df() turns integers with a null into floats")
def test_a_data_frame_keeps_integers_beside_nulls(stock) -> None:
    store = stock("duckdb").open(rows((1, 2**53 + 1, T), (2, None, T)))
    found = store.get_historical_features(spine((1, T), (2, T)), ["spend:n"]).to_df()
    assert int(found.set_index("card")["n"][1]) == 2**53 + 1


@upstream("the DuckDB store takes a naive time for UTC", NOT_RAISED)
def test_a_naive_time_is_refused(stock) -> None:
    store = stock("duckdb").open(rows((1, 5, T)))
    with pytest.raises(Exception, match="zone"):
        store.get_historical_features(
            spine((1, T)).assign(event_timestamp=[pd.Timestamp("2018-06-01 12:00")]), ["spend:n"]
        )


@upstream("what was written later counts at once, unless filter_by_created_timestamp is asked for")
def test_what_was_known_at_the_time_is_the_default(stock) -> None:
    late = rows((1, 5, T)).set_column(3, TIMES[1], pa.array([T + HOUR], UTC_US))
    assert answers(stock("duckdb").open(late), spine((1, T))) == {1: None}


@upstream("an Iceberg table is read whole, whatever is asked of it", FileNotFoundError)
def test_iceberg_reads_only_the_days_that_can_answer(stock, tmp_path) -> None:
    store = stock("iceberg").open(rows((1, 5, T), (1, 6, T + 48 * HOUR)), ttl=HOUR)
    (other,) = (tmp_path / "warehouse").rglob("event_timestamp_day=2018-06-03/*.parquet")
    other.unlink()
    assert answers(store, spine((1, T))) == {1: 5}


@upstream("the registry holds the catalog's place and its options, secrets among them")
def test_a_registry_says_nothing_of_places_and_secrets(stock) -> None:
    store = stock("iceberg").open(rows((1, 5, T)))
    assert b"catalog.db" not in store.registry.proto().SerializeToString()


@upstream("an Iceberg table takes no pandas times: they are nanoseconds", UnsupportedPyArrowTypeException)
def test_iceberg_takes_rows_from_pandas(stock) -> None:
    store = stock("iceberg").open(rows((1, 5, T)))
    store.write_to_offline_store(
        "spend", rows((2, 6, T)).to_pandas().astype(dict.fromkeys(TIMES, "datetime64[ns, UTC]"))
    )
    assert answers(store, spine((2, T))) == {2: 6}


@upstream("an online store keeps answering what has expired: there is no ttl in Feast's Python reader")
def test_feast_s_reader_honours_the_ttl_online(stock, tmp_path) -> None:
    store = stock("duckdb").open(rows((1, 5, T)), ttl=HOUR)
    online = {"type": "sqlite", "path": str(tmp_path / "online.db")}
    config = store.config.model_copy(update={"online_store": None}).model_dump(exclude={"online_store"}, by_alias=True)
    again = feast.FeatureStore(config=feast.RepoConfig.model_validate({**config, "online_store": online}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again.apply(again.list_feature_views() + again.list_entities())
        again.materialize(T - HOUR, T + HOUR)
    assert again.get_online_features(["spend:n"], [{"card": 1}]).to_dict()["n"] == [None], "it is years old"

"""Stock Feast reads what we wrote, and our engine writes through Feast's own client, also on a cluster and behind Sentinel."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import feast
import pandas as pd
import pytest
from feast import types
from pydantic import SecretStr

from lockstep.offline.registry import online_store
from lockstep.online.cluster import primaries
from lockstep.online.store import connect
from lockstep.settings import Settings
from tests.kinds import Clustered, Watched

T = datetime(2018, 6, 1, 12, tzinfo=UTC)
SECRET = '12, "a=b"'  # noqa: S105


@pytest.fixture(params=["sentinel", "cluster"])
def there(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    if request.param == "sentinel":
        with Watched(tmp_path / "servers").running() as watched:
            watched.primary.client.config_set("requirepass", SECRET)
            yield watched.settings(settings).model_copy(update={"redis_password": SecretStr(SECRET)})
    else:
        with Clustered(tmp_path / "servers").running() as cluster:
            for server in cluster.servers:
                server.client.config_set("requirepass", SECRET)
            yield cluster.settings(settings).model_copy(update={"redis_password": SecretStr(SECRET)})


@pytest.mark.filterwarnings("ignore")
def test_feast_materializes_with_our_engine_and_reads_it(there: Settings, tmp_path: Path) -> None:
    rows = pd.DataFrame({"card": range(50), "n": range(50), "at": T, "made": T})
    rows.to_parquet(tmp_path / "rows.parquet", coerce_timestamps="us")
    store = feast.FeatureStore(
        config=feast.RepoConfig.model_validate(
            {
                "project": "shop",
                "provider": "local",
                "registry": {"registry_type": "sql", "path": f"sqlite:///{tmp_path}/registry.db"},
                "offline_store": {"type": "duckdb"},
                "online_store": online_store(there),
                "batch_engine": "lockstep.offline.feast_engine.LockstepEngine",
                "entity_key_serialization_version": 3,
            }
        )
    )
    card = feast.Entity(name="card", join_keys=["card"], value_type=feast.ValueType.INT64)
    source = feast.FileSource(
        name="rows", path=str(tmp_path / "rows.parquet"), timestamp_field="at", created_timestamp_column="made"
    )
    fields = [feast.Field(name="card", dtype=types.Int64), feast.Field(name="n", dtype=types.Int64)]
    store.apply([card, feast.FeatureView(name="spend", source=source, entities=[card], schema=fields)])

    store.materialize(T - timedelta(hours=1), T + timedelta(hours=1))

    entities = [{"card": n} for n in range(51)]
    answer = store.get_online_features(features=["spend:n"], entity_rows=entities).to_dict()
    assert answer["n"] == [*range(50), None]
    with connect(there) as client:
        assert sum(primary.client.dbsize() for primary in primaries(client)) == 50

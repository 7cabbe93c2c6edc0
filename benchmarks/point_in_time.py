"""Point-in-time retrieval: our store behind Feast, Feast's own DuckDB store, and a query written by hand.

All three read the same Iceberg tables for the same entity rows and must give the same values. The peer is Feast 0.67's DuckDB
store over `IcebergSource` with `filter_by_created_timestamp`, the one way it has to say "known at the time"; the limit is one
query over the tables' files, written by hand for these very views, that checks nothing. Each run is a process of its own:
wall and CPU seconds are of the retrieval, without imports and opening the store; peak memory is the whole process's.
"""

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks._process import ENGINES, headings, in_process, medians, timed
from benchmarks._table import show
from lockstep.lake import Lake
from lockstep.settings import Settings

PROJECT = "benchmark"
START_US = 1_527_854_400_000_000  # 2018-06-01T12:00:00Z
DAY_US = 86_400_000_000
DAYS = 90
FEATURES = {"f0": pa.float64(), "f1": pa.float64(), "f2": pa.float64(), "n0": pa.int64(), "n1": pa.int64()}
TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [pa.field("card_id", pa.int64(), nullable=False)]
    + [pa.field(name, kind) for name, kind in FEATURES.items()]
    + [pa.field(name, TIME, nullable=False) for name in ("event_timestamp", "created_timestamp")]
)
SPINE = "spine.parquet"


@dataclass(frozen=True)
class Case:
    """A spine of `spine` rows over `views` tables of `keys` keys with `each` rows a key; ttl in days, 0 is for ever."""

    spine: int
    views: int
    keys: int
    each: int
    ttl: int = 0
    peer_repeats: int = 1

    @property
    def tables(self) -> list[str]:
        """The tables, one a view."""
        return [f"view_{number}" for number in range(self.views)]


CASES = {
    "sparse": Case(spine=200_000, views=3, keys=100_000, each=10, peer_repeats=3),
    "medium": Case(spine=500_000, views=5, keys=50_000, each=40, ttl=7),
    "dense": Case(spine=200_000, views=1, keys=1_000, each=1_000, ttl=30),
    "1 M spine": Case(spine=1_000_000, views=3, keys=100_000, each=10),
}
QUICK = {
    "sparse": Case(spine=20_000, views=3, keys=10_000, each=10),
    "dense": Case(spine=20_000, views=1, keys=300, each=300, ttl=30),
}


def make_rows(case: Case, seed: int) -> pa.Table:
    """Return a feature table in no order: of each hundred rows one is corrected later, and five become known days late."""
    random = np.random.default_rng(seed)
    count = case.keys * case.each
    event = START_US + random.integers(0, DAYS * DAY_US, count)
    late = np.where(random.random(count) < 0.05, random.integers(0, 3 * DAY_US, count), 0)
    corrected = random.choice(count, count // 100, replace=False)
    key = np.repeat(np.arange(case.keys), case.each)
    keys = np.concatenate([key, key[corrected]])
    events = np.concatenate([event, event[corrected]])
    created = events + 300_000_000 + np.concatenate([late, late[corrected] + DAY_US])
    total = len(keys)
    columns = [random.gamma(2.0, 40.0, total) for _ in range(3)] + [
        random.integers(0, 1 << 40, total) for _ in range(2)
    ]
    times = [pa.array(micros).cast(TIME) for micros in (events, created)]
    return pa.table([pa.array(keys), *map(pa.array, columns), *times], schema=SCHEMA)


def make_spine(case: Case) -> pa.Table:
    """Return the entity rows, in order of time; some ask for keys that are unknown."""
    random = np.random.default_rng(99)
    times = np.sort(START_US + random.integers(0, DAYS * DAY_US, case.spine))
    return pa.table(
        {
            "card_id": random.integers(0, case.keys + case.keys // 50, case.spine),
            "event_timestamp": pa.array(times).cast(TIME),
        }
    )


def deliver(case: Case, home: Path) -> None:
    """Write the tables and the spine of a case."""
    lake = Lake.open(Settings(home=home).resolved(), PROJECT)
    for seed, table in enumerate(case.tables):
        lake.ensure_table(table, SCHEMA, "event_timestamp")
        lake.append(table, make_rows(case, seed))
    pq.write_table(make_spine(case), home / SPINE)


def feature_store(case: Case, home: Path, engine: str) -> Any:
    """Return a Feast store over the lake: with our offline store, or with Feast's DuckDB store and the catalog in the source."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's dependencies warn while they are imported
        import feast  # noqa: PLC0415
        from feast import types  # noqa: PLC0415
        from feast.infra.data_sources.contrib.iceberg_catalog.iceberg_source import IcebergSource  # noqa: PLC0415

        from lockstep.offline.feast_store import LockstepDuckDBOfflineStoreConfig  # noqa: PLC0415
    settings = Settings(home=home).resolved()
    Lake.open(settings, PROJECT)  # else ours would open it, and import what that takes, while it is measured
    catalog: dict[str, Any] = {"warehouse": "lake"}
    offline: Mapping[str, Any] = LockstepDuckDBOfflineStoreConfig.of(settings).model_dump()
    if engine == "peer":
        properties = {"uri": settings.catalog_uri}
        catalog = {
            "warehouse": settings.warehouse,
            "catalog_type": "sql",
            "catalog_name": "lake",
            "catalog_properties": properties,
        }
        offline = {"type": "duckdb"}
    config = feast.RepoConfig.model_validate(
        {
            "project": PROJECT,
            "provider": "local",
            "registry": {"registry_type": "sql", "path": f"sqlite:///{home}/{engine}.db"},
            "offline_store": dict(offline),
            "online_store": None,
            "entity_key_serialization_version": 3,
        }
    )
    kinds = {pa.float64(): types.Float64, pa.int64(): types.Int64}
    card = feast.Entity(name="card", join_keys=["card_id"], value_type=types.Int64.to_value_type())
    views = [
        feast.FeatureView(
            name=table,
            entities=[card],
            ttl=timedelta(days=case.ttl),
            schema=[feast.Field(name="card_id", dtype=types.Int64)]
            + [feast.Field(name=name, dtype=kinds[kind]) for name, kind in FEATURES.items()],
            source=IcebergSource(
                namespace=PROJECT,
                table=table,
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
                **catalog,
            ),
        )
        for table in case.tables
    ]
    store = feast.FeatureStore(config=config)
    store.apply([card, *views])
    return store


def through_feast(case: Case, home: Path, engine: str) -> Callable[[], pa.Table]:
    """Return what asks a Feast store for every feature of the case."""
    store = feature_store(case, home, engine)
    refs = [f"{table}:{name}" for table in case.tables for name in FEATURES]
    # Ours takes Arrow; Feast's takes pandas only.
    spine: Any = pq.read_table(home / SPINE) if engine == "ours" else pq.read_table(home / SPINE).to_pandas()

    def run() -> pa.Table:
        job = store.get_historical_features(spine, refs, full_feature_names=True, filter_by_created_timestamp=True)
        return job.to_arrow()

    return run


def by_hand(case: Case, home: Path) -> Callable[[], pa.Table]:
    """Return what runs one query over the files: steps of what was known, and an ASOF join a view."""
    lake = Lake.open(Settings(home=home).resolved(), PROJECT)
    parts, columns = [], ["s.card_id", "s.event_timestamp"]
    for table in case.tables:
        files = [task.file.file_path.removeprefix("file://") for task in lake.table(table).scan().plan_files()]
        parts.append(f"""{table} AS (
            SELECT *, greatest(event_timestamp, created_timestamp) AS known FROM read_parquet({files!r})
            WINDOW w AS (PARTITION BY card_id ORDER BY greatest(event_timestamp, created_timestamp), event_timestamp,
                         created_timestamp ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
            QUALIFY event_timestamp >= max(event_timestamp) OVER w)""")
        young = f"s.event_timestamp - {table}.event_timestamp <= INTERVAL {case.ttl} DAY" if case.ttl else "TRUE"
        columns += [f"CASE WHEN {young} THEN {table}.{name} END AS {table}__{name}" for name in FEATURES]
    joins = [
        f"ASOF LEFT JOIN {table} ON s.card_id = {table}.card_id AND s.event_timestamp >= {table}.known"
        for table in case.tables
    ]
    sql = (
        f"WITH s AS (SELECT *, row_number() OVER () AS n FROM read_parquet('{home / SPINE}')), {', '.join(parts)} "
        f"SELECT {', '.join(columns)} FROM s {' '.join(joins)} ORDER BY s.n"
    )
    connection = duckdb.connect(config={"memory_limit": Settings(home=home).duckdb_memory_limit})
    connection.execute("SET TimeZone = 'UTC'")
    return lambda: connection.sql(sql).to_arrow_table()


def digest(case: Case, found: pa.Table) -> str:
    """Return the SHA-256 of the answers in order of the entity rows, equal ones among each other in order of their values."""
    names = ["event_timestamp", "card_id", *(f"{table}__{name}" for table in case.tables for name in FEATURES)]
    times = found["event_timestamp"].cast(TIME)
    table = found.select(names).set_column(0, "event_timestamp", times)
    table = table.sort_by([("event_timestamp", "ascending"), ("card_id", "ascending")])
    hashed = hashlib.sha256(str(table.num_rows).encode())
    for name in names:
        values = table[name].combine_chunks()
        hashed.update(np.packbits(values.is_null().to_numpy(zero_copy_only=False)).tobytes())
        hashed.update(values.cast(pa.int64() if name == "event_timestamp" else values.type).fill_null(0).to_numpy())
    return hashed.hexdigest()


def measure(engine: str, name: str, home: Path, *, quick: bool) -> dict[str, Any]:
    """Retrieve once in this process, and say what it took."""
    case = (QUICK if quick else CASES)[name]
    run = by_hand(case, home) if engine == "limit" else through_feast(case, home, engine)
    found, took = timed(run)
    return {**took, "digest": digest(case, found)}


def run_case(name: str, case: Case, repeats: int, *, quick: bool) -> dict[str, Any]:
    """Measure all three engines on one case, each time in a new process, in turns; each figure is a median."""
    measured: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory(prefix="lockstep-") as home:
        deliver(case, Path(home))
        for number in range(repeats):
            for engine in ENGINES:
                if engine != "peer" or number < case.peer_repeats:
                    arguments = [engine, "--case", name, "--home", home, *(["--quick"] if quick else [])]
                    measured[engine].append(in_process("benchmarks.point_in_time", arguments))
    digests = {run["digest"] for runs in measured.values() for run in runs}
    if len(digests) != 1:
        raise click.ClickException(f"{name}: the answers differ between ours, the peer and the limit")
    figures = medians(measured)
    return {
        "case": name,
        "spine_rows": case.spine,
        "view_rows": case.keys * case.each,
        **figures,
        "ratio": round(figures["peer_cpu_s"] / figures["ours_cpu_s"], 1),
        "ratio_limit": round(figures["ours_cpu_s"] / figures["limit_cpu_s"], 2),
        "ratio_memory": round(figures["peer_peak_mib"] / figures["ours_peak_mib"], 2),
    }


HEADINGS = {
    "case": "point in time",
    "spine_rows": "spine",
    "view_rows": "rows a view",
    **headings("cpu_s", "CPU s"),
    "ratio": "peer/ours",
    "ratio_limit": "ours/limit",
    **headings("wall_s", "wall s"),
    **headings("peak_mib", "peak MiB"),
}


@click.command()
@click.option("--quick", is_flag=True, help="Two small cases.")
@click.option("--case", "names", multiple=True, help="Only this case; may be repeated.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Each figure is their median.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
@click.option("--engine", type=click.Choice(ENGINES), hidden=True)
@click.option("--home", type=click.Path(path_type=Path), hidden=True)
def main(
    *, quick: bool, names: tuple[str, ...], repeats: int, json_file: Path | None, engine: str | None, home: Path | None
) -> None:
    """Print CPU seconds, wall seconds and peak memory, a row a case: ours, peer, limit and ratios."""
    cases = QUICK if quick else CASES
    if unknown := set(names) - set(cases):
        raise click.UsageError(f"no case {', '.join(sorted(unknown))}; there are {', '.join(cases)}")
    if engine is not None and home is not None:
        click.echo(json.dumps(measure(engine, names[0], home, quick=quick)))
        return
    rows = [run_case(name, case, repeats, quick=quick) for name, case in cases.items() if not names or name in names]
    show(rows, HEADINGS, json_file)


if __name__ == "__main__":
    main()

"""A view's table brought online: our materialization, Feast's, and a socket that is sent the same bytes.

Ours plans, reads the lake, writes, verifies and commits one interval. The peer is `FeatureStore.materialize` of Feast 0.67 over
the same Iceberg table: its local engine, its DuckDB store, batches of our size. The limit is a socket that is sent our own
commands, encoded before, and reads no lake. Each run is a process of its own and starts with an empty Redis: CPU and wall are of
the materialization without imports, peak memory is the whole process's. What is stored afterwards must be the same.
"""

import hashlib
import json
import socket
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from benchmarks._process import ENGINES, headings, in_process, medians, timed
from benchmarks._table import show
from benchmarks.online_write import PROJECT, commands, send
from lockstep.clock import from_micros
from lockstep.contract import stored_view
from lockstep.lake import Lake
from lockstep.lake.snapshots import TICK
from lockstep.local.redis import LocalRedis
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.online.layout import pair_field
from lockstep.online.store import connect
from lockstep.online.writer import BATCH_ROWS, COMPARE_AND_SET
from lockstep.settings import Settings
from lockstep.views import Entity, LatestView, Source, hours, latest_view, soft

NAME = "card_state"
START_US = 1_527_854_400_000_000  # 2018-06-01T12:00:00Z
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Case:
    """So many entities with so many features: half of them float64, half int64."""

    entities: int
    features: int

    @property
    def view(self) -> LatestView:
        """The view whose table is brought online."""
        floats, integers = self.features - self.features // 2, self.features // 2
        return latest_view(
            name=NAME,
            entity=Entity("card", "card_id", "int64", "benchmarks"),
            source=Source("cards", "at", "seen", "benchmarks"),
            columns={f"f{n}": "float64" for n in range(floats)} | {f"n{n}": "int64" for n in range(integers)},
            every=hours(1),
            ttl=timedelta(0),
            freshness=soft(hours(3)),
            owner="benchmarks",
        )


CASES = {"500 k x 5": Case(500_000, 5), "1 M x 20": Case(1_000_000, 20)}
QUICK = {"20 k x 5": Case(20_000, 5), "10 k x 20": Case(10_000, 20)}


def deliver(case: Case, home: Path) -> None:
    """Write the table: a row a key, in ten snapshots, each key in one of them."""
    lake, view = Lake.open(Settings(home=home).resolved(), PROJECT), case.view
    lake.ensure_table(view.table, view.schema, "event_timestamp")
    random = np.random.default_rng(1)
    for part in np.array_split(np.arange(case.entities), 10):
        count = len(part)
        columns: dict[str, Any] = {"card_id": part}
        for name, kind in view.columns.items():
            integers = random.integers(0, 1 << 20, count)
            columns[name] = integers if kind == "int64" else random.gamma(2.0, 40.0, count)
        for name, late in (("event_timestamp", 0), ("created_timestamp", 60_000_000)):
            columns[name] = pa.array(np.full(count, START_US + late)).cast(TIME)
        rows = pa.table(columns).select(view.schema.names).cast(view.schema)
        lake.append(view.table, rows, {TICK: str(START_US)})


def ours(case: Case, settings: Settings) -> Callable[[], object]:
    """Return what materializes with Lockstep."""
    lake, ledger = Lake.open(settings, PROJECT), Ledger.open(settings, PROJECT)
    return Materializer(settings, lake, ledger, connect(settings), PROJECT, case.view).run


def peer(case: Case, settings: Settings) -> Callable[[], object]:
    """Return what materializes with stock Feast."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's dependencies warn while they are imported
        import feast  # noqa: PLC0415
        from feast import types  # noqa: PLC0415
        from feast.infra.data_sources.contrib.iceberg_catalog.iceberg_source import IcebergSource  # noqa: PLC0415
    kinds = {"float64": types.Float64, "int64": types.Int64}
    card = feast.Entity(name="card", join_keys=["card_id"], value_type=types.Int64.to_value_type())
    source = IcebergSource(
        namespace=PROJECT,
        table=NAME,
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        warehouse=settings.warehouse,
        catalog_type="sql",
        catalog_name="lake",
        catalog_properties={"uri": settings.catalog_uri},
    )
    schema = [feast.Field(name="card_id", dtype=types.Int64)]
    schema += [feast.Field(name=name, dtype=kinds[kind]) for name, kind in case.view.columns.items()]
    view = feast.FeatureView(name=NAME, entities=[card], ttl=timedelta(0), schema=schema, source=source)
    config = {
        "project": PROJECT,
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{settings.home}/peer-{time.time_ns()}.db"},
        "offline_store": {"type": "duckdb"},
        "online_store": {"type": "redis", "connection_string": f"127.0.0.1:{settings.redis_port}"},
        "entity_key_serialization_version": 3,
        "materialization": {"online_write_batch_size": BATCH_ROWS},
    }
    store = feast.FeatureStore(config=feast.RepoConfig.model_validate(config))
    store.apply([card, view])
    first, last = from_micros(START_US - 1), from_micros(START_US + 1)
    return lambda: store.materialize(first, last, feature_views=[NAME])


def limit(case: Case, settings: Settings) -> Callable[[], object]:
    """Return what sends the bytes that ours sends, encoded before."""
    rows = Lake.open(settings, PROJECT).table(NAME).scan().to_arrow()
    batches = list(commands(rows.cast(case.view.schema), stored_view(case.view)))
    connection = socket.create_connection(("127.0.0.1", settings.redis_port))
    with connect(settings) as client:
        client.script_load(COMPARE_AND_SET)
    return lambda: send(connection, batches)


def measure(engine: str, case: Case, settings: Settings) -> dict[str, Any]:
    """Materialize once in this process, and say what it took; of ours also what a second run takes, with nothing new."""
    run = {"ours": ours, "peer": peer, "limit": limit}[engine](case, settings)
    took = timed(run)[1]
    return took | {"again_s": timed(run)[1]["wall_s"]} if engine == "ours" else took


def digest(settings: Settings) -> str:
    """Return the SHA-256 of what is stored of one key of a hundred, without our own field, which Feast lacks."""
    hashed = hashlib.sha256()
    with connect(settings) as client:
        keys = sorted(key for key in client.scan_iter(count=10_000) if key.endswith(PROJECT.encode()))
        keys = [key for key in keys if not key.startswith(b"lockstep:")]
        hashed.update(str(len(keys)).encode())
        for key in keys[::100]:
            for field, value in sorted(client.hgetall(key).items()):
                if field != pair_field(NAME):
                    hashed.update(field + value)
    return hashed.hexdigest()


def run_case(name: str, case: Case, repeats: int, *, quick: bool) -> dict[str, Any]:
    """Measure all three on one case, each time in a new process with an empty store, in turns; each figure is a median."""
    measured: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
    digests: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
        home = Path(folder)
        deliver(case, home)
        for number in range(repeats):
            for engine in ENGINES:
                ledger = f"sqlite:///{home}/ledger-{number}-{engine}.db"
                with LocalRedis(home) as server:
                    settings = server.settings(Settings(home=home, ledger_url=ledger).resolved())
                    arguments = [engine, "--case", name, *(["--quick"] if quick else [])]
                    arguments += ["--settings", settings.model_dump_json()]
                    measured[engine].append(in_process("benchmarks.materialize", arguments))
                    digests.add(digest(settings))
    if len(digests) != 1:
        raise click.ClickException(f"{name}: what is stored differs between ours, the peer and the limit")
    figures = medians(measured)
    return {
        "case": name,
        "rows": case.entities,
        **figures,
        "ratio": round(figures["peer_cpu_s"] / figures["ours_cpu_s"], 1),
        "ratio_limit": round(figures["limit_wall_s"] / figures["ours_wall_s"], 2),
        "again_s": round(statistics.median(run["again_s"] for run in measured["ours"]), 3),
    }


HEADINGS = {
    "case": "materialize",
    "rows": "rows",
    **headings("cpu_s", "CPU s"),
    "ratio": "peer/ours",
    **headings("wall_s", "wall s"),
    "ratio_limit": "limit/ours",
    **headings("peak_mib", "peak MiB"),
    "again_s": "nothing new, s",
}


@click.command()
@click.option("--quick", is_flag=True, help="Two small cases.")
@click.option("--case", "names", multiple=True, help="Only this case; may be repeated.")
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True, help="Each figure is their median.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
@click.option("--engine", type=click.Choice(ENGINES), hidden=True)
@click.option("--settings", "settings_json", hidden=True)
def main(
    *,
    quick: bool,
    names: tuple[str, ...],
    repeats: int,
    json_file: Path | None,
    engine: str | None,
    settings_json: str | None,
) -> None:
    """Print CPU seconds, wall seconds and peak memory, a row a case: ours, peer, limit and ratios."""
    cases = QUICK if quick else CASES
    if unknown := set(names) - set(cases):
        raise click.UsageError(f"no case {', '.join(sorted(unknown))}; there are {', '.join(cases)}")
    if engine is not None and settings_json is not None:
        click.echo(json.dumps(measure(engine, cases[names[0]], Settings.model_validate_json(settings_json))))
        return
    rows = [run_case(name, case, repeats, quick=quick) for name, case in cases.items() if not names or name in names]
    show(rows, HEADINGS, json_file)


if __name__ == "__main__":
    main()

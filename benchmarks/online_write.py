"""Bringing rows online: our writer against stock Feast's, from the same Arrow table to the same bytes in Redis.

The peer does what `feast materialize` does with `online_write_batch_size` set to our batch: rows to protobuf, then
`RedisOnlineStore.online_write_batch`, which reads the stored times and sets what is newer. The limit is a socket that is sent
our own commands, encoded before. A rewrite brings every key other values of an hour later: on rows of the same event time Feast
writes nothing. What is counted is the writer's CPU; the server's is shown beside it, for our comparison runs there.
"""

import hashlib
import socket
import statistics
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import redis

from benchmarks._table import cpu_seconds, show
from lockstep.contract import Column, View
from lockstep.local.redis import LocalRedis
from lockstep.online.layout import RowLayout, pair_field
from lockstep.online.sender import CALL_ROWS
from lockstep.online.store import connect
from lockstep.online.writer import BATCH_ROWS, COMPARE_AND_SET, write_rows
from lockstep.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Feast's dependencies warn while they are imported
    import feast
    from feast import types as feast_types
    from feast.infra.online_stores.redis import RedisOnlineStore
    from feast.utils import _convert_arrow_to_proto

PROJECT = "benchmark"
VIEW = View(
    name="card_spend",
    table="card_spend",
    join_keys=(Column(name="card_id", dtype="int64"),),
    columns=(
        Column(name="amount_mean_7d", dtype="float64"),
        Column(name="amount_mean_30d", dtype="float64"),
        Column(name="nb_tx_7d", dtype="int64"),
        Column(name="nb_tx_30d", dtype="int64"),
        Column(name="last_merchant", dtype="string"),
    ),
    ttl_us=0,
    every_us=3_600_000_000,
    compute_lag_us=0,
    visible_lag_us=0,
    freshness_us=3_600_000_000,
    freshness_hard=False,
    owner="benchmarks",
    definition_hash="0" * 64,
)
FEAST_TYPES = {"float64": feast_types.Float64, "int64": feast_types.Int64, "string": feast_types.String}
START_US = 1_527_854_400_000_000  # 2018-06-01T12:00:00Z
CASES = ("first write", "rewrite")
WRITERS = ("ours", "peer", "limit")
SAMPLED = 100

Write = Callable[[pa.Table], object]
Stored = list[dict[bytes, bytes]]


def make_rows(count: int, version: int) -> pa.Table:
    """Return a row per key; each version has its own values, an hour after the one before."""
    random = np.random.default_rng(version)
    event = np.full(count, START_US + version * VIEW.every_us)
    return pa.table(
        {
            "card_id": np.arange(count),
            "amount_mean_7d": random.gamma(2.0, 40.0, count),
            "amount_mean_30d": random.gamma(2.0, 40.0, count),
            "nb_tx_7d": random.integers(0, 50, count),
            "nb_tx_30d": random.integers(0, 200, count),
            "last_merchant": [f"merchant-{number:06}" for number in random.integers(0, 100_000, count)],
            "event_timestamp": pa.array(event).cast(pa.timestamp("us", "UTC")),
            "created_timestamp": pa.array(event + 60_000_000).cast(pa.timestamp("us", "UTC")),
        }
    )


def feast_writer(port: int) -> Write:
    """Return what Feast's local compute engine does with a table, see its `LocalOutputNode`."""
    config = feast.RepoConfig(
        project=PROJECT,
        provider="local",
        registry="unused.db",
        online_store={"type": "redis", "connection_string": f"127.0.0.1:{port}"},
        entity_key_serialization_version=3,
    )
    (key,) = VIEW.join_keys
    key_type = FEAST_TYPES[key.dtype].to_value_type()
    view = feast.FeatureView(
        name=VIEW.name,
        entities=[feast.Entity(name=key.name, join_keys=[key.name], value_type=key_type)],
        schema=[feast.Field(name=c.name, dtype=FEAST_TYPES[c.dtype]) for c in (key, *VIEW.columns)],
        source=feast.FileSource(
            name=VIEW.name,
            path="unused.parquet",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
    )
    store = RedisOnlineStore()

    def write(rows: pa.Table) -> None:
        for batch in rows.to_batches(max_chunksize=BATCH_ROWS):
            store.online_write_batch(config, view, _convert_arrow_to_proto(batch, view, {key.name: key_type}), None)

    return write


def commands(rows: pa.Table, view: View = VIEW) -> Iterator[tuple[bytes, bytes]]:
    """Yield our commands for each batch as the bytes of the Redis protocol, and the answer where all rows are accepted."""
    layout = RowLayout(PROJECT, view)
    sha = hashlib.sha1(COMPARE_AND_SET.encode(), usedforsecurity=False).hexdigest().encode()
    for start in range(0, rows.num_rows, BATCH_ROWS):
        encoded = layout.encode(rows.slice(start, BATCH_ROWS))
        batch, rows_of_calls = bytearray(), list[int]()
        values = list(zip(*encoded.columns, strict=True))
        for first in range(0, len(encoded.keys), CALL_ROWS):
            keys = encoded.keys[first : first + CALL_ROWS]
            named = (zip(encoded.fields, row, strict=True) for row in values[first : first + CALL_ROWS])
            arguments = chain.from_iterable(chain.from_iterable(row) for row in named)
            parts = (b"EVALSHA", sha, b"%d" % len(keys), *keys, *arguments)
            batch += b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
            rows_of_calls.append(len(keys))
        yield bytes(batch), b"".join(b":%d\r\n" % count for count in rows_of_calls)


def send(connection: socket.socket, batches: list[tuple[bytes, bytes]]) -> None:
    """Send the batches, each before the last one is answered, as ours does, and see that all rows are accepted."""
    for number, (batch, _) in enumerate(batches):
        connection.sendall(batch)
        if number:
            _expect(connection, batches[number - 1][1])
    _expect(connection, batches[-1][1])


def _expect(connection: socket.socket, accepted: bytes) -> None:
    answered = bytearray()
    while len(answered) < len(accepted) and (received := connection.recv(len(accepted) - len(answered))):
        answered += received
    if answered != accepted:
        raise click.ClickException(f"the server refused a row: {bytes(answered[:200])!r}")


def stored(client: "redis.Redis", rows: pa.Table) -> Stored:
    """Return what is stored of a sample of the rows."""
    if client.dbsize() != rows.num_rows:
        raise click.ClickException(f"{client.dbsize()} keys are stored, not {rows.num_rows}")
    sample = rows.take(np.linspace(0, rows.num_rows - 1, min(SAMPLED, rows.num_rows)).astype(int))
    return [client.hgetall(key) for key in RowLayout(PROJECT, VIEW).encode(sample).keys]


def require_equal(case: str, found: dict[str, Stored]) -> None:
    """Refuse to compare what did not store the same: ours and the limit all of it, the peer all but the field it lacks."""
    without = [{k: v for k, v in fields.items() if k != pair_field(VIEW.name)} for fields in found["ours"]]
    if found["limit"] != found["ours"] or found["peer"] != without:
        raise click.ClickException(f"{case}: what is stored differs between ours, the peer and the limit")
    if not all(len(fields) == 2 + len(VIEW.columns) for fields in found["ours"]):
        raise click.ClickException(f"{case}: a sampled row is not stored whole")


def server_seconds(client: "redis.Redis") -> float:
    used = client.info("cpu")
    return used["used_cpu_user"] + used["used_cpu_sys"]


def measure(count: int, repeats: int, home: Path) -> list[dict[str, Any]]:
    versions = [make_rows(count, version) for version in range(len(CASES))]
    encoded = {id(rows): list(commands(rows)) for rows in versions}
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    server: dict[tuple[str, str], list[float]] = defaultdict(list)
    with (
        LocalRedis(home) as local,
        connect(local.settings(Settings(home=home))) as client,
        socket.create_connection(("127.0.0.1", local.port)) as connection,
    ):
        writers: dict[str, Write] = {
            "ours": lambda rows: write_rows(client, PROJECT, VIEW, rows),
            "peer": feast_writer(local.port),
            "limit": lambda rows: send(connection, encoded[id(rows)]),
        }
        # Connections, the script and lazy imports are not what is measured.
        for name in ("ours", "peer"):
            writers[name](make_rows(10, 0))
        for _ in range(repeats):
            found: dict[str, dict[str, Stored]] = {case: {} for case in CASES}
            for name, write in writers.items():
                client.flushall()
                for case, rows in zip(CASES, versions, strict=True):
                    before = server_seconds(client)
                    seconds[case, name].append(cpu_seconds(lambda write=write, rows=rows: write(rows)))
                    server[case, name].append(server_seconds(client) - before)
                    found[case][name] = stored(client, rows)
            for case in CASES:
                require_equal(case, found[case])
    return [row(case, count, repeats, seconds, server) for case in CASES]


def row(
    case: str,
    count: int,
    repeats: int,
    seconds: dict[tuple[str, str], list[float]],
    server: dict[tuple[str, str], list[float]],
) -> dict[str, Any]:
    rates = {name: count / statistics.median(seconds[case, name]) for name in WRITERS}
    return {
        "case": case,
        "rows": count,
        "repeats": repeats,
        **{f"{name}_rows_per_cpu_s": round(rates[name]) for name in WRITERS},
        "ratio": round(rates["ours"] / rates["peer"], 2),
        "ratio_limit": round(rates["ours"] / rates["limit"], 4),
        **{f"{name}_server_cpu_s": round(statistics.median(server[case, name]), 4) for name in WRITERS},
    }


HEADINGS = {
    "case": "rows per CPU second",
    "rows": "rows",
    **{f"{name}_rows_per_cpu_s": name for name in WRITERS},
    "ratio": "ours/peer",
    "ratio_limit": "ours/limit",
    **{f"{name}_server_cpu_s": f"server CPU s: {name}" if name == "ours" else name for name in WRITERS},
}


@click.command()
@click.option("--quick", is_flag=True, help="20 000 rows instead of 200 000.")
@click.option("--rows", type=click.IntRange(1), help="That many rows instead.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Each figure is their median.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
def main(*, quick: bool, rows: int | None, repeats: int, json_file: Path | None) -> None:
    """Print rows per CPU second of the writing process, a row a case: ours, peer, limit and ratios."""
    with tempfile.TemporaryDirectory(prefix="lockstep-") as home:
        measured = measure(rows or (20_000 if quick else 200_000), repeats, Path(home))
    show(measured, HEADINGS, json_file)


if __name__ == "__main__":
    main()

"""Computing the ticks of a windowed view: change points against evaluating every key at every tick.

The peer is the hand-written query: keys x ticks, joined to the rows in each window. The limit is one grouping pass over the
source. Both queries read the same table in the same engine, and every row ours writes has the peer's values.
"""

import json
import resource
import statistics
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import duckdb
import pyarrow as pa

from feature_repo.simulator import SimulatorParameters, simulate
from feature_repo.views.customer_spend import customer_spend
from lockstep.clock import MICROSECOND, to_micros
from lockstep.views.windowed_ticks import WindowedTicks

HOUR = timedelta(hours=1) // MICROSECOND
WINDOWS = {f"{days}d": days * 24 * HOUR for days in (1, 7, 30)}
MEASURES = {"nb_tx": "1", "amount_cents": "amount_cents", "amount_cents_squared": "amount_cents * amount_cents"}
COLUMNS = [f"{measure}_{window}" for measure in MEASURES for window in WINDOWS]


def naive_sql(first: int, last: int) -> str:
    sums = ", ".join(
        f"sum(CASE WHEN event_us >= tick * {HOUR} - {width} THEN {of} ELSE 0 END) AS {measure}_{window}"
        for measure, of in MEASURES.items()
        for window, width in WINDOWS.items()
    )
    longest = max(WINDOWS.values())
    return (
        f"SELECT key, tick, {sums} FROM (SELECT DISTINCT key FROM source) JOIN range({first}, {last + 1}) ticks(tick) ON TRUE "
        f"JOIN source USING (key) WHERE event_us < tick * {HOUR} AND event_us >= tick * {HOUR} - {longest} GROUP BY key, tick"
    )


def measured(run: Callable[[], pa.Table], repeats: int) -> tuple[float, pa.Table]:
    seconds: list[float] = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_SELF)
        table = run()
        after = resource.getrusage(resource.RUSAGE_SELF)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(seconds), table


def case(name: str, customers: int, days: int, repeats: int) -> dict[str, Any]:
    world = simulate(SimulatorParameters(customers=customers, terminals=2 * customers, days=days, radius=20.0, seed=1))
    first = to_micros(world.parameters.start) // HOUR + 1
    last = first - 1 + days * 24
    with duckdb.connect() as connection:
        connection.register("transactions", world.transactions)
        connection.execute(
            "CREATE TABLE source AS SELECT customer_id AS key, epoch_us(tx_datetime) AS event_us, "
            "epoch_us(ingested_at) AS known_us, amount_cents FROM transactions"
        )
        connection.execute(f"CREATE TABLE answered (key BIGINT, {', '.join(f'{c} BIGINT' for c in COLUMNS)})")
        connection.execute(f"CREATE VIEW span AS SELECT {first} AS first, {last} AS last")
        query = WindowedTicks(customer_spend)
        ours, rows = measured(
            lambda: connection.sql(query.sql("duckdb", known_per_tick=False)).to_arrow_table(), repeats
        )
        peer, every = measured(lambda: connection.sql(naive_sql(first, last)).to_arrow_table(), 1)
        grouping = "SELECT key, event_us // 3600000000, count(*), sum(amount_cents) FROM source GROUP BY ALL"
        limit, _ = measured(lambda: connection.sql(grouping).to_arrow_table(), repeats)
        connection.register("ours", rows)
        connection.register("every", every)
        same = " AND ".join(f"coalesce(every.{c}, 0) = ours.{c}" for c in COLUMNS)
        (differing,) = connection.execute(
            f"SELECT count(*) FROM ours LEFT JOIN every USING (key, tick) WHERE NOT ({same})"
        ).fetchall()[0]
    if differing:
        raise click.ClickException(f"{name}: {differing} rows are not the peer's")
    return {
        "case": name,
        "source_rows": world.transactions.num_rows,
        "rows_written": rows.num_rows,
        "ours_cpu_s": round(ours, 3),
        "peer_cpu_s": round(peer, 3),
        "limit_cpu_s": round(limit, 3),
        "ratio": round(peer / ours, 1),
    }


@click.command()
@click.option("--quick", is_flag=True, help="A small case only.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
def main(*, quick: bool, json_file: Path | None) -> None:
    """Print CPU seconds, a row a case: ours, peer, limit, and how many times less than the peer ours takes."""
    cases = [("60 days, 100 cards", 100, 60)] + [("90 days, 400 cards", 400, 90)] * (not quick)
    rows = [case(name, customers, days, 3) for name, customers, days in cases]
    click.echo(f"{'case':<20}{'ours':>9}{'peer':>9}{'limit':>9}{'ratio':>8}   CPU seconds")
    for row in rows:
        figures = f"{row['ours_cpu_s']:>9}{row['peer_cpu_s']:>9}{row['limit_cpu_s']:>9}{row['ratio']:>8}"
        click.echo(f"{row['case']:<20}{figures}")
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()

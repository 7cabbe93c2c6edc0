"""Bootstrapping three views over a history of the published size: 1.75 million payments, 183 days, into real tables.

The limit is what a platform team would grant one pod: 90 CPU seconds and 2 GiB for all three. There is no peer: evaluating
every key at every tick takes as long as `benchmarks.ticks` says, times the size.
"""

import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from benchmarks._process import in_process, timed
from benchmarks._table import show
from feature_repo.views.customer_spend import customer_spend
from feature_repo.views.terminal_activity import terminal_activity
from feature_repo.views.terminal_risk import terminal_risk
from lockstep.clock import to_micros
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.settings import Settings
from lockstep.views.compute import bootstrap

VIEWS = {view.name: view for view in (customer_spend, terminal_activity, terminal_risk)}
START = datetime(2018, 4, 1, tzinfo=UTC)
DAYS, PAYMENTS, CUSTOMERS, TERMINALS = 183, 1_754_155, 5_000, 10_000
LIMIT_CPU_S, LIMIT_MIB = 90.0, 2_048.0
LABEL_DELAY = timedelta(days=7)


def history(payments: int) -> tuple[pa.Table, pa.Table]:
    """Return payments in order of time, and a label of each a week later: the published rates, keys and times uniform."""
    random = np.random.default_rng(1)
    seconds = np.sort(random.integers(0, DAYS * 86_400, payments))
    at = to_micros(START) + seconds * 1_000_000
    time = pa.timestamp("us", tz="UTC")
    when = pa.array(at, pa.int64()).cast(time)
    terminal = pa.array(random.integers(0, TERMINALS, payments))
    transactions = pa.table(
        {
            "customer_id": pa.array(random.integers(0, CUSTOMERS, payments)),
            "terminal_id": terminal,
            "tx_datetime": when,
            "amount_cents": pa.array(random.integers(1, 22_000, payments)),
            "ingested_at": pa.array(at + 1_000_000, pa.int64()).cast(time),
        }
    )
    labelled = pa.array(at + LABEL_DELAY // timedelta(microseconds=1), pa.int64()).cast(time)
    fraud = pa.array((random.random(payments) < 0.0084).astype(np.int64))
    labels = pa.table({"terminal_id": terminal, "tx_datetime": when, "labelled_at": labelled, "tx_fraud": fraud})
    return transactions, labels


def measure(home: Path, name: str) -> dict[str, Any]:
    """Bootstrap one view of a home whose sources are written."""
    settings, view = _settings(home), VIEWS[name]
    lake, ledger = Lake.open(settings, "fraud"), Ledger.open(settings, "fraud")
    done, took = timed(lambda: bootstrap(settings, lake, ledger, view, START, START + timedelta(days=DAYS)))
    return {"rows_written": done.rows, **took}


def _settings(home: Path) -> Settings:
    settings = Settings(home=home, clock_file=home / "clock").resolved()
    settings.clock.advance_to(START + timedelta(days=DAYS, hours=1))
    return settings


@click.command()
@click.option("--quick", is_flag=True, help="A fiftieth of the payments.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
@click.option("--engine", nargs=2, hidden=True, metavar="HOME VIEW", help="One measurement, in this process.")
def main(*, quick: bool, json_file: Path | None, engine: tuple[str, str] | None) -> None:
    """Print CPU seconds and peak memory, a row a view and their sum, against the limit."""
    if engine is not None:
        click.echo(json.dumps(measure(Path(engine[0]), engine[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(_settings(Path(folder)), "fraud")
        for source, rows in zip(("transactions", "labels"), history(PAYMENTS // (50 if quick else 1)), strict=True):
            lake.ensure_table(source, rows.schema, "tx_datetime")
            lake.append(source, rows)
        rows = [{"case": name, **in_process("benchmarks.bootstrap", [folder, name])} for name in VIEWS]
    whole = {
        "case": "all three",
        "rows_written": sum(row["rows_written"] for row in rows),
        "cpu_s": sum(row["cpu_s"] for row in rows),
        "wall_s": sum(row["wall_s"] for row in rows),
        "peak_mib": max(row["peak_mib"] for row in rows),
    }
    rows = [{**row, "cpu_s": round(row["cpu_s"], 1), "peak_mib": round(row["peak_mib"])} for row in (*rows, whole)]
    limits = {"limit_cpu_s": LIMIT_CPU_S, "limit_mib": LIMIT_MIB}
    rows[-1] |= limits | {"ratio": round(LIMIT_CPU_S / rows[-1]["cpu_s"], 1)}
    rows = [dict.fromkeys((*limits, "ratio"), "") | row for row in rows]
    headings = {
        "case": "view",
        "rows_written": "rows",
        "cpu_s": "CPU s: ours",
        "limit_cpu_s": "limit",
        "ratio": "ratio",
    }
    show(rows, headings | {"peak_mib": "peak MiB: ours", "limit_mib": "limit"}, json_file)


if __name__ == "__main__":
    main()

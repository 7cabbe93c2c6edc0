"""The exact clock at every payment of the published size: 1.75 million, of 5,000 cards at 10,000 terminals in 183 days.

The peer is pandas' rolling windows, group by group over all payments, as the Fraud Detection Handbook computes the same twelve
features (BaselineFeatureTransformation, https://fraud-detection-handbook.github.io). Both read the same payments in the same
order and must give the same bits. Ours also adds up the squares that the view declares, and the peer does not. The limit is 15
CPU seconds for both views. Each run is a process of its own: seconds are without imports and the simulation, peak memory is the
whole process's.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks._process import in_process, timed
from benchmarks._table import show
from feature_repo.simulator import SimulatorParameters, World, simulate
from feature_repo.views.customer_spend import customer_spend
from feature_repo.views.terminal_risk import terminal_risk
from lockstep.views.exact import Reach, value_at_times

FULL = SimulatorParameters()
QUICK = SimulatorParameters(customers=500, terminals=1_000, days=60, radius=15.0)
WINDOWS = (1, 7, 30)
DELAY = 7
LIMIT_CPU_S = 15.0
ENGINES = ("ours", "peer")
VIEWS = ("customer_spend", "terminal_risk")


def in_order(world: World) -> tuple[pa.Table, pa.Table]:
    """Return payments and labels, both in the order of the payments."""
    return world.transactions.sort_by("transaction_id"), world.labels.sort_by("transaction_id")


def ours_of_cards(payments: pa.Table, labels: pa.Table) -> list[NDArray[np.float64]]:
    del labels
    times, cents = payments["tx_datetime"].cast(pa.int64()).to_numpy(), payments["amount_cents"].to_numpy()
    keys, places = payments["customer_id"], np.arange(len(times))
    # The handbook knows a payment as it happens.
    found = value_at_times(customer_spend, payments, keys, times, before=places, reach=Reach(heed_known=False))
    features: list[NDArray[np.float64]] = []
    for days in WINDOWS:  # the payment itself is added, as `transaction_context` does
        number = found[f"nb_tx_{days}d"] + 1.0
        features += [number, (found[f"amount_cents_{days}d"] + cents) / number]
    return features


def ours_of_terminals(payments: pa.Table, labels: pa.Table) -> list[NDArray[np.float64]]:
    times = payments["tx_datetime"].cast(pa.int64()).to_numpy()
    found = value_at_times(terminal_risk, labels, payments["terminal_id"], times, reach=Reach(heed_known=False))
    return [found[f"{name}_{days}d"].astype(np.float64) for days in WINDOWS for name in ("nb_tx", "risk")]


def peer_of_cards(payments: pd.DataFrame) -> list[NDArray[np.float64]]:
    parts = []
    for _, rows in payments.groupby("customer_id"):
        cents = rows.set_index("tx_datetime")["amount_cents"]
        part: dict[str, NDArray[np.float64]] = {}
        for days in WINDOWS:
            rolling = cents.rolling(f"{days}d")
            total, number = rolling.sum(), rolling.count()
            part[f"nb_{days}"], part[f"mean_{days}"] = number.to_numpy(), (total / number).to_numpy()
        parts.append(pd.DataFrame(part, index=rows.index))
    return _columns(parts)


def peer_of_terminals(payments: pd.DataFrame) -> list[NDArray[np.float64]]:
    parts = []
    for _, rows in payments.groupby("terminal_id"):
        frauds = rows.set_index("tx_datetime")["tx_fraud"]
        late = frauds.rolling(f"{DELAY}d")
        late_frauds, late_number = late.sum(), late.count()
        part: dict[str, NDArray[np.float64]] = {}
        for days in WINDOWS:
            rolling = frauds.rolling(f"{DELAY + days}d")
            fraud, number = rolling.sum() - late_frauds, rolling.count() - late_number
            part[f"nb_{days}"], part[f"risk_{days}"] = number.to_numpy(), (fraud / number).fillna(0.0).to_numpy()
        parts.append(pd.DataFrame(part, index=rows.index))
    return _columns(parts)


def _columns(parts: list[pd.DataFrame]) -> list[NDArray[np.float64]]:
    whole = pd.concat(parts).sort_index()
    return [whole[name].to_numpy() for name in whole.columns]


def measure(engine: str, view: str, *, quick: bool) -> dict[str, Any]:
    """Compute the features of one view at every payment in this process, and say what it took."""
    payments, labels = in_order(simulate(QUICK if quick else FULL))
    cards = view == "customer_spend"
    if engine == "ours":
        features, took = timed(lambda: (ours_of_cards if cards else ours_of_terminals)(payments, labels))
    else:
        frame = payments.append_column("tx_fraud", labels["tx_fraud"]).to_pandas()
        features, took = timed(lambda: (peer_of_cards if cards else peer_of_terminals)(frame))
    hashed = hashlib.sha256(b"".join(np.ascontiguousarray(values, "<f8").tobytes() for values in features))
    return {**took, "rows": payments.num_rows, "digest": hashed.hexdigest()}


def case(view: str, *, quick: bool) -> dict[str, Any]:
    arguments = [view, *(["--quick"] if quick else [])]
    runs = {engine: in_process("benchmarks.exact_windows", [engine, *arguments]) for engine in ENGINES}
    if runs["ours"]["digest"] != runs["peer"]["digest"]:
        raise click.ClickException(f"{view}: the values are not the peer's")
    figures = {f"{engine}_{of}": runs[engine][of] for engine in ENGINES for of in ("cpu_s", "wall_s", "peak_mib")}
    return {"case": view, "rows": runs["ours"]["rows"], **figures}


HEADINGS = {
    "case": "exact clock",
    "rows": "rows",
    "ours_cpu_s": "CPU s: ours",
    "peer_cpu_s": "peer",
    "limit_cpu_s": "limit",
    "ratio": "peer/ours",
    "ours_wall_s": "wall s: ours",
    "peer_wall_s": "peer",
    "ours_peak_mib": "peak MiB: ours",
    "peer_peak_mib": "peer",
}


@click.command()
@click.option("--quick", is_flag=True, help="A tenth of the cards in a third of the days.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
@click.option("--engine", nargs=2, hidden=True, metavar="ENGINE VIEW", help="One measurement, in this process.")
def main(*, quick: bool, json_file: Path | None, engine: tuple[str, str] | None) -> None:
    """Print CPU seconds, wall seconds and peak memory, a row a view and their sum, against the peer and the limit."""
    if engine is not None:
        click.echo(json.dumps(measure(*engine, quick=quick)))
        return
    rows = [case(view, quick=quick) for view in VIEWS]
    both = {"case": "both", "rows": rows[0]["rows"]}
    for name in (f"{engine}_{of}" for engine in ENGINES for of in ("cpu_s", "wall_s")):
        both[name] = sum(row[name] for row in rows)
    both |= {f"{engine}_peak_mib": max(row[f"{engine}_peak_mib"] for row in rows) for engine in ENGINES}
    rows.append({**both, "limit_cpu_s": LIMIT_CPU_S})
    rows = [{"limit_cpu_s": "", **row, "ratio": round(row["peer_cpu_s"] / row["ours_cpu_s"], 1)} for row in rows]
    rows = [{name: round(v, 2) if isinstance(v, float) else v for name, v in row.items()} for row in rows]
    show(rows, HEADINGS, json_file)


if __name__ == "__main__":
    main()

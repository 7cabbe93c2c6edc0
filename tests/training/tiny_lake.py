"""A tiny lake: 30 cards and 6 terminals, a payment an hour, large payments are fraud, view rows written by hand."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from feature_repo.simulator import SCHEMAS
from lockstep.clock import to_micros
from lockstep.lake import Lake
from lockstep.offline.registry import apply_definitions
from lockstep.settings import Settings
from lockstep.views import UseCase
from lockstep.views.windowed import WindowedView

START = datetime(2018, 5, 1, tzinfo=UTC)
KNOWN_AT = datetime(2018, 5, 20, 15, tzinfo=UTC)
DAY = 86_400_000_000
HOUR = DAY // 24
CARDS, TERMINALS, PAYMENTS = 30, 6, 20 * 24


def micros(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def payments() -> dict[str, pa.Table]:
    """A payment each hour from START; a label is known a day later. Card 29 and terminal 5 have no feature rows."""
    rng = np.random.default_rng(7)
    time = to_micros(START) + np.arange(PAYMENTS) * HOUR
    common = {
        "transaction_id": np.arange(PAYMENTS),
        "tx_datetime": micros(time),
        "customer_id": rng.integers(0, CARDS, PAYMENTS),
        "terminal_id": rng.integers(0, TERMINALS, PAYMENTS),
    }
    cents = rng.integers(100, 30_000, PAYMENTS)
    fraud = (cents > 22_000).astype(np.int64)
    transactions = {**common, "amount_cents": cents, "ingested_at": micros(time + 2_000_000)}
    labels = {**common, "tx_fraud": fraud, "tx_fraud_scenario": fraud, "labelled_at": micros(time + DAY)}
    return {
        name: pa.table(columns, schema=SCHEMAS[name])
        for name, columns in (("transactions", transactions), ("labels", labels))
    }


def view_rows(view: WindowedView, keys: int) -> pa.Table:
    """One row a key and day at 00:00, created five minutes later: measure m of key k on day d is 100 m + 10 k + d."""
    day, key = (a.ravel() for a in np.meshgrid(np.arange(20), np.arange(keys), indexing="ij"))
    columns = {view.entity.join_key: pa.array(key)}
    for number, (name, dtype) in enumerate(view.features.items()):
        whole = 100 * number + 10 * key + day
        columns[name] = pa.array(whole if dtype == "int64" else whole / 1_000)
    tick = to_micros(START) + day * DAY
    columns["event_timestamp"], columns["created_timestamp"] = micros(tick), micros(tick + 300_000_000)
    return pa.table(columns).cast(view.schema)


def fill(settings: Settings, use_case: UseCase, *, parts: int = 1, backwards: bool = False) -> Lake:
    """Write the tables in so many appends, each in order or the other way round, and apply the definitions."""
    lake = Lake.open(settings, use_case.project)
    spend, risk = use_case.view("customer_spend"), use_case.view("terminal_risk")
    tables = {
        **payments(),
        spend.table: view_rows(spend, CARDS - 1),
        risk.table: view_rows(risk, TERMINALS - 1),
    }
    for name, rows in tables.items():
        lake.ensure_table(name, rows.schema)
        order = np.arange(rows.num_rows)[:: -1 if backwards else 1]
        for part in np.array_split(order, parts):
            lake.append(name, rows.take(pa.array(part)))
    apply_definitions(settings, use_case)
    return lake

"""A small project in which three customers are everywhere; run as a program it erases one of them and kills itself on the way."""

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import redis

from feature_repo.simulator import SCHEMAS
from lockstep.clock import parse_time, to_micros
from lockstep.erasure import Erasure, read_key
from lockstep.lake import Lake
from lockstep.lake.snapshots import COMPUTE_ID, TICK
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.online.epoch import Epochs
from lockstep.online.reader import Reading, ViewRows
from lockstep.online.store import connect
from lockstep.serving.drain import drain
from lockstep.serving.log_rows import UNIFORM, Served, encode_rows, stream_key
from lockstep.serving.request import Request
from lockstep.settings import Settings
from lockstep.views import load_use_case

T = parse_time("2018-06-01T12:00:00Z")
USE_CASE = load_use_case("feature_repo")
SPEND = USE_CASE.view("customer_spend")
RISK = USE_CASE.view("terminal_risk")
GONE = 7_777_777_777
CUSTOMERS = (1, GONE, 9_999_999_999)
CONTRACT = "lockstep.contract"


def materializer(settings: Settings, lake: Lake, store: "redis.Redis", view=SPEND) -> Materializer:
    return Materializer(settings, lake, Ledger.open(settings, "fraud"), store, "fraud", view)


def tick(lake: Lake, hour: int, *customers: int) -> None:
    at = T + timedelta(hours=hour)
    rows = [
        {"customer_id": c, "nb_tx_1d": hour, "event_timestamp": at, "created_timestamp": at + timedelta(minutes=5)}
        for c in customers
    ]
    properties = {TICK: str(to_micros(at)), COMPUTE_ID: str(100 + hour)}
    lake.append(SPEND.table, pa.Table.from_pylist(rows, SPEND.schema), properties)


def payments(hour: int, *customers: int) -> pa.Table:
    at = T + timedelta(hours=hour)
    rows = [
        {
            "transaction_id": 10 * hour + n,
            "tx_datetime": at,
            "customer_id": customer,
            "terminal_id": n,
            "amount_cents": 100,
            "ingested_at": at,
        }
        for n, customer in enumerate(customers)
    ]
    return pa.Table.from_pylist(rows, SCHEMAS["transactions"])


def serve(store: "redis.Redis", first: int, *customers: int) -> None:
    """Put a row of the served log for each customer into the stream."""
    n = len(customers)
    micros = to_micros(T)
    request = Request(f"r{first}", [micros] * n, {"customer_id": list(customers)}, [{"amount_cents": 1}] * n)
    reading = Reading(*[Epochs("i", {})] * 2, {SPEND.name: ViewRows(["missing"] * n, [None] * n, [None] * n, {})})
    served = Served(request, micros, reading, np.zeros((n, 1)), [0.5] * n, [[]] * n, "c" * 64, shadow=False)
    for row in encode_rows(served, [(row, UNIFORM) for row in range(n)], "m" * 64, "p", first):
        store.xadd(stream_key("fraud"), {"row": row})


def fill(settings: Settings, store: "redis.Redis") -> Lake:
    """Make a project of raw events, two views, a training set and a served log, online as far as the last tick."""
    lake = Lake.open(settings, "fraud")
    lake.ensure_table("transactions", SCHEMAS["transactions"], "tx_datetime")
    lake.append("transactions", payments(0, 1, 9_999_999_999))
    for hour in (1, 2, 30):
        lake.append("transactions", payments(hour, *CUSTOMERS))
    lake.ensure_table(SPEND.table, SPEND.schema, "event_timestamp")
    tick(lake, 0, 1)
    lake.tag(SPEND.table, lake.current(SPEND.table).id, "training-before")
    tick(lake, 1, *CUSTOMERS)
    lake.tag(SPEND.table, lake.current(SPEND.table).id, "training-abc")
    tick(lake, 2, GONE)
    tick(lake, 3, 9_999_999_999)
    lake.ensure_table(RISK.table, RISK.schema, "event_timestamp")
    times = {"event_timestamp": T, "created_timestamp": T}
    risk = pa.Table.from_pylist([{"terminal_id": n, **times} for n in (1, 2)], RISK.schema)
    lake.append(RISK.table, risk, {TICK: str(to_micros(T))})
    spine = pa.table({"customer_id": pa.array(CUSTOMERS, pa.int64()), "tx_fraud": pa.array([0, 1, 0], pa.int64())})
    lake.ensure_table("training_abc", spine.schema)
    lake.append("training_abc", spine, {CONTRACT: "the contract"})
    for view in (SPEND, RISK):
        materializer(settings, lake, store, view).run()
    serve(store, 1, *CUSTOMERS)
    drain(lake, store, "fraud")
    serve(store, 4, *CUSTOMERS)
    return lake


def eraser(settings: Settings, store: "redis.Redis", progress=lambda _: None) -> Erasure:
    return Erasure(settings, USE_CASE, Lake.open(settings, "fraud"), Ledger.open(settings, "fraud"), store, progress)


if __name__ == "__main__":
    _, home, port, at = sys.argv

    def die(said: str) -> None:
        if said.startswith(at):
            os.kill(os.getpid(), signal.SIGKILL)

    where = Settings(home=Path(home), clock_file=Path(home) / "clock", redis_port=int(port)).resolved()
    with connect(where) as client:
        eraser(where, client, die).erase(read_key(USE_CASE, "customer", str(GONE)))

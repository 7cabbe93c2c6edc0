"""A small service with real processes, for tests: a Redis, a transformer and a predictor, and what is online of the case."""

import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fraud_case
import orjson
import pyarrow as pa
import pytest
import redis
from served_process import PATIENT, Answer, Listening

from lockstep.clock import to_micros
from lockstep.contract import FeatureContract
from lockstep.local import LocalRedis, LocalService
from lockstep.local.ports import free_port
from lockstep.online.epoch import EpochStore, Mark, ViewEpoch
from lockstep.online.store import connect
from lockstep.online.writer import write_rows
from lockstep.serving.log_rows import stream_key
from lockstep.settings import Settings

TODAY = datetime(2018, 6, 1, 12, tzinfo=UTC)
EVENT_US = to_micros(TODAY - timedelta(hours=1))
CREATED_US = EVENT_US + 300_000_000
OLD_US = EVENT_US - 4 * fraud_case.DAY_US
AVERAGE = 0.1 + 0.2  # not a short decimal: every bit must survive the store, the hop and the log

KNOWN, STALE, UNKNOWN = 7, 8, 999


@dataclass
class Stack:
    settings: Settings
    service: LocalService
    redis: LocalRedis
    model_dir: Path

    @property
    def transformer(self) -> Listening:
        return Listening(self.service.port)

    @property
    def predictor(self) -> Listening:
        return Listening(self.service.predictor_port)

    def good(self) -> Answer:
        return self.transformer.ask({"instances": [self.row()]}, PATIENT)

    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.redis.port)

    def row(self, customer: int = KNOWN, terminal: int = 5, **changes: Any) -> dict[str, Any]:
        row = {"customer_id": customer, "terminal_id": terminal, "amount_cents": 1250}
        return row | {"request_time": self.settings.clock.now().isoformat()} | changes

    def post(self, body: Any, headers: dict[str, str] | None = None, url: str = "") -> tuple[int, dict[str, Any], Any]:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        sent = {"content-type": "application/json"} | PATIENT | (headers or {})
        request = urllib.request.Request(url or self.service.predict_url, data, sent)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, orjson.loads(answer.read()), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, orjson.loads(error.read()), error.headers

    def logged(self, request_id: str) -> list[dict[str, Any]]:
        """Return the stream's rows of one request, once they have arrived."""
        with self.client() as client:
            for _ in range(200):
                entries = client.xrange(stream_key("fraud_case"))
                rows = [orjson.loads(fields[b"row"]) for _, fields in entries]
                found = [row for row in rows if row["request_id"] == request_id]
                if found:
                    return found
                time.sleep(0.02)
        raise AssertionError(f"{request_id} was never logged")


def fill(settings: Settings) -> None:
    """Write two customers, one of them long ago, and one terminal."""
    with connect(settings) as store:
        cards = {
            "customer_id": pa.array([KNOWN, STALE], pa.int64()),
            "nb_tx_7d": pa.array([3, 4], pa.int64()),
            "avg_amount_7d": pa.array([AVERAGE, 1.5], pa.float64()),
        }
        write_rows(store, "fraud_case", fraud_case.CARDS, pa.table(cards | times([EVENT_US, OLD_US])))
        terminals = {"terminal_id": pa.array([5], pa.int64()), "risk_28d": pa.array([None], pa.float64())}
        write_rows(store, "fraud_case", fraud_case.TERMINALS, pa.table(terminals | times([EVENT_US])))
        epochs = EpochStore(store, "fraud_case")
        epochs.ensure_incarnation()
        for view in (fraud_case.CARDS, fraud_case.TERMINALS):
            epochs.restore(view.name, ViewEpoch(Mark(1, 1, 1, EVENT_US)))


def times(events_us: list[int]) -> dict[str, pa.Array]:
    kind = pa.timestamp("us", tz="UTC")
    created = [event + CREATED_US - EVENT_US for event in events_us]
    return {"event_timestamp": pa.array(events_us, kind), "created_timestamp": pa.array(created, kind)}


@contextmanager
def serving_stack(home: Path, contract: FeatureContract, *, shadow: bool = False, **changes: Any) -> Iterator[Stack]:
    """Serve a contract of the case, its estimators fitted on noise; `changes` are settings."""
    model_dir = fraud_case.write_model(home / "model", contract, fraud_case.fitted())
    given = Settings(home=home, use_case="fraud_case", clock_file=home / "clock", **changes)
    given.clock.advance_to(TODAY)
    with pytest.MonkeyPatch.context() as patch, LocalRedis(home, free_port()) as server:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))))
        settings = server.settings(given.resolved())
        fill(settings)
        with LocalService(settings, model_dir, "fraud", shadow=shadow) as service:
            yield Stack(settings, service, server, model_dir)

"""The served log: one row for each answered row, exactly as it was read and scored, on its way to the lake.

The transformer puts rows into a bounded queue and a task sends them in batches to a Redis Stream; `drain` moves them to
Iceberg. Answering never waits for it. Each process numbers the rows that it logs, so that a lost row is a gap and not a
silence: a batch whose sending failed is not sent twice.

Where not all rows are logged, those of a share of the requests are, whatever became of them, and beside them each row with a
flag. Only the former say something about all that was served.
"""

import asyncio
import hashlib
import logging
import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import Any
from uuid import uuid4

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge

from lockstep.online.reader import Reading
from lockstep.online.store import FAILURES, StoreAsync
from lockstep.serving.request import Request

SERVED_LOG = "served_log"
PARTITION_BY = "request_time"
ROW_FIELD = b"row"
UNIFORM = "uniform"
FLAGGED = "flagged"

_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("row", pa.int32()),
        ("request_time", _TIME),  # t: what the caller sent
        ("read_time", _TIME),  # r: when the store had answered
        ("inputs", pa.string()),  # JSON: the request inputs as sent, without the request time
        ("entity_keys", pa.string()),  # JSON
        ("epoch_before", pa.string()),  # JSON
        ("epoch_after", pa.string()),  # JSON
        (
            "views",
            pa.list_(
                pa.struct(
                    [
                        ("view", pa.string()),
                        ("status", pa.string()),  # present, missing or stale
                        ("event_timestamp", _TIME),
                        ("created_timestamp", _TIME),  # null: unknown
                        ("values", pa.string()),  # JSON: as stored, before on-demand functions and policy
                    ]
                )
            ),
        ),
        ("vector", pa.list_(pa.float64())),  # null for NaN
        ("contract", pa.string()),
        ("model", pa.string()),
        ("score", pa.float64()),
        ("flags", pa.list_(pa.string())),
        ("shadow", pa.bool_()),
        ("why", pa.string()),  # uniform, or flagged
        ("process", pa.string()),
        ("counter", pa.int64()),  # from 1 in each process; gaps are losses
    ]
)

QUEUE_ROWS = 50_000
# Encoding this many takes about 5 ms, for which answers may have to wait; with much smaller batches, requests of a thousand
# rows, one after the other, outran the log and it dropped a fifth of their rows (measured).
BATCH_ROWS = 500
# About 1.5 kB a row: if nobody drains, the log costs the store at most 750 MB and then loses its oldest rows, seen as gaps.
STREAM_ROWS = 500_000

_SEND_SECONDS = 5.0
_LINGER_SECONDS = 0.05

_ROWS = Counter("lockstep_served_log_rows", "Rows of the served log by what became of them.", ["outcome"])
_WAITING = Gauge("lockstep_served_log_queue_rows", "Rows of the served log that wait to be sent.")


@dataclass(frozen=True)
class Served:
    """One answered request, not yet in the log's form.

    Attributes:
        request: what was asked.
        read_time_us: when the store had answered, in microseconds.
        reading: what it answered.
        vectors: what the model got, rows by features.
        scores: what it said, one a row.
        flags: what was unusual, one list a row.
        contract: the hash of the contract that made the vectors.
        shadow: nobody acts on the answer.
    """

    request: Request
    read_time_us: int
    reading: Reading
    vectors: NDArray[np.float64]
    scores: Sequence[float]
    flags: Sequence[Sequence[str]]
    contract: str
    shadow: bool


def chosen_rows(served: Served, rate: float) -> list[tuple[int, str]]:
    """Return which rows are logged, each with why.

    Args:
        served: all its rows are chosen, or none, by a hash of the request's id; so the same request is chosen everywhere.
        rate: the share of the requests to choose. Other rows are chosen if they are flagged.
    """
    rows = range(len(served.scores))
    if rate >= 1 or _share(served.request.id) < rate:
        return [(row, UNIFORM) for row in rows]
    return [(row, FLAGGED) for row in rows if served.flags[row]]


def _share(request_id: str) -> float:
    """Return where an id lies in [0, 1)."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest()) / 2**64


def stream_key(project: str) -> str:
    """Return the name of the project's Redis Stream."""
    return f"lockstep:served:{project}"


def encode_values(values: Mapping[str, Any]) -> str:
    """Return stored values as JSON; what JSON has no number for is the text "NaN", "Infinity" or "-Infinity" (as in protobuf)."""
    return orjson.dumps({name: _encoded(value) for name, value in values.items()}).decode()


def decode_values(text: str, floats: Collection[str]) -> dict[str, Any]:
    """Read what `encode_values` wrote; `floats` names the columns that hold floats."""
    values = orjson.loads(text)
    return {n: float(v) if n in floats and isinstance(v, str) else v for n, v in values.items()}


def _encoded(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124 - NaN is unequal to itself
    return value.hex() if isinstance(value, bytes) else value


def encode_rows(
    served: Served, chosen: Sequence[tuple[int, str]], model: str, process: str, counter: int
) -> Iterator[bytes]:
    """Yield each chosen row as JSON with the schema's names; times are whole microseconds, `counter` is the first one's."""
    request, reading = served.request, served.reading
    before, after = reading.before.to_json().decode(), reading.after.to_json().decode()
    for number, (row, why) in enumerate(chosen, counter):
        views = [
            {
                "view": name,
                "status": rows.status[row],
                "event_timestamp": rows.event_us[row],
                "created_timestamp": _known(rows.created_us[row]),
                "values": encode_values({column: values[row] for column, values in rows.values.items()}),
            }
            for name, rows in reading.views.items()
        ]
        document = {
            "request_id": request.id,
            "row": row,
            "request_time": request.times_us[row],
            "read_time": served.read_time_us,
            "inputs": orjson.dumps(request.inputs[row]).decode(),
            "entity_keys": orjson.dumps({key: values[row] for key, values in request.entities.items()}).decode(),
            "epoch_before": before,
            "epoch_after": after,
            "views": views,
            "vector": served.vectors[row],
            "contract": served.contract,
            "model": model,
            "score": served.scores[row],
            "flags": served.flags[row],
            "shadow": served.shadow,
            "why": why,
            "process": process,
            "counter": number,
        }
        yield orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _known(created_us: int | None) -> int | None:
    """Return a created time, or None for the reader's -1: another writer did not say."""
    return None if created_us == -1 else created_us


_Item = tuple[int, Served, Sequence[tuple[int, str]]]
"""The number of the first row, what was served, and which rows of it are logged."""


class ServedLog:
    """Sends served rows to the project's Redis Stream, behind the answers.

    Args:
        redis: where the stream is; closed by its owner.
        project: names the stream.
        model: the digest of the model that scored the rows.
        rate: see `chosen_rows`.
    """

    def __init__(self, redis: StoreAsync, project: str, model: str, rate: float = 1.0) -> None:
        self.process = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.sent = 0
        self.dropped = 0
        self._redis = redis
        self._key = stream_key(project)
        self._model = model
        self._rate = rate
        self._counter = 0
        self._waiting = 0
        self._queue: asyncio.Queue[_Item | None] = asyncio.Queue()
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(_report)

    def offer(self, served: Served) -> None:
        """Take one answered request, or count its rows as dropped when the queue is full; never waits."""
        chosen = chosen_rows(served, self._rate)
        if not chosen:
            return
        first = self._counter + 1
        self._counter += len(chosen)
        if self._task.done() or self._waiting + len(chosen) > QUEUE_ROWS:
            self._count(dropped=len(chosen))
            return
        self._wait(len(chosen))
        self._queue.put_nowait((first, served, chosen))

    async def close(self, deadline: float = 5.0) -> None:
        """Send what is waiting, for at most `deadline` seconds."""
        self._closing.set()
        self._queue.put_nowait(None)
        try:
            async with asyncio.timeout(deadline):
                await self._task
        except TimeoutError:
            self._count(dropped=self._waiting)

    async def _run(self) -> None:
        batch: list[bytes] = []
        item = await self._queue.get()
        while item is not None:
            # More may come: to send each row by itself costs as much as to read a request's features.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _LINGER_SECONDS)
            while item is not None:
                first, served, chosen = item
                for row in encode_rows(served, chosen, self._model, self.process, first):
                    batch.append(row)
                    if len(batch) == BATCH_ROWS:
                        await self._send(batch)
                if self._queue.empty():
                    break
                item = self._queue.get_nowait()
            if batch:
                await self._send(batch)
            if item is not None:
                item = await self._queue.get()

    async def _send(self, batch: list[bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for row in batch:
            pipeline.xadd(self._key, {ROW_FIELD: row}, maxlen=STREAM_ROWS, approximate=True)
        try:
            # A store that hangs must not keep the rows of minutes in memory: those of this batch are lost, and counted.
            async with asyncio.timeout(_SEND_SECONDS):
                await pipeline.execute()
        except FAILURES as failure:  # TimeoutError is an OSError
            logging.getLogger(__name__).warning(
                "%d rows of the served log were not confirmed: %s", len(batch), failure
            )
            self._count(dropped=len(batch))
        else:
            self._count(sent=len(batch))
        self._wait(-len(batch))
        batch.clear()

    def _wait(self, rows: int) -> None:
        self._waiting += rows
        _WAITING.set(self._waiting)

    def _count(self, *, sent: int = 0, dropped: int = 0) -> None:
        self.sent += sent
        self.dropped += dropped
        _ROWS.labels("sent").inc(sent)
        _ROWS.labels("dropped").inc(dropped)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        logging.getLogger(__name__).critical(
            "the served log has stopped; rows are dropped from here on", exc_info=failure
        )

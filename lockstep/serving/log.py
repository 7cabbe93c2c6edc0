"""The served log: one row for each answered row, exactly as it was read and scored, on its way to the lake.

The transformer puts rows into a bounded queue and a task sends them in batches to a Redis Stream; `drain` moves them to
Iceberg. Answering never waits for it. Each process numbers the rows that it logs, so that a lost row is a gap and not a
silence: a batch whose sending failed is not sent twice.

Where not all rows are logged, those of a share of the requests are, whatever became of them, and beside them each row with a
flag. Only the former say something about all that was served.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from uuid import uuid4

from prometheus_client import Counter, Gauge

from lockstep.online.store import FAILURES, StoreAsync
from lockstep.serving.log_rows import ROW_FIELD, Served, chosen_rows, encode_rows, stream_key

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

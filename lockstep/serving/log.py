"""The served log: one row for each row that was answered or rejected, exactly as it was read and scored, on its way to the lake.

The transformer puts rows into a bounded queue and a task sends them in batches to a Redis Stream; `drain` moves them to
Iceberg. Answering never waits for it. Each process numbers the rows that it logs, so that a lost row is a gap and not a
silence: a batch whose sending failed is not sent twice.

Where not all rows are logged, those of a share of the requests are, whatever became of them, and beside them each row with a
flag. Only the former say something about all that was served, and that only as far as the callers name their requests apart: a
request is chosen by its id alone (see `chosen_rows`).
"""

import asyncio
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from uuid import uuid4

from prometheus_client import Counter, Gauge

from lockstep.online.store import FAILURES, StoreAsync, kind_of
from lockstep.serving.log_rows import ROW_FIELD, Served, chosen_rows, encode_rows, stream_key

# A row is a few kB, since a request bounds the texts in it: that is what bounds the queue's memory.
QUEUE_ROWS = 50_000
# Encoding this many takes about 5 ms, for which answers may have to wait; with much smaller batches, requests of a thousand
# rows, one after the other, outran the log and it dropped a fifth of their rows (measured).
BATCH_ROWS = 500
# About 1.5 kB a row: if nobody drains, the log costs the store at most 750 MB and then loses its oldest rows, seen as gaps.
STREAM_ROWS = 500_000

_SEND_SECONDS = 5.0
LINGER_SECONDS = 0.2

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
        linger: for how many seconds a row waits for others to be sent with.
    """

    def __init__(
        self, redis: StoreAsync, project: str, model: str, rate: float = 1.0, linger: float = LINGER_SECONDS
    ) -> None:
        self.process = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.sent = 0
        self.dropped = 0
        self._redis = redis
        self._key = stream_key(project)
        self._model = model
        self._rate = rate
        self._linger = linger
        self._counter = 0
        self._told: set[str] = set()
        self._waiting = 0
        self._queue: asyncio.Queue[_Item | None] = asyncio.Queue()
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(_report)

    def offer(self, served: Served) -> None:
        """Take one request, or count its rows as dropped when the queue is full; never waits."""
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
            self._wait(-self._waiting)

    async def _run(self) -> None:
        batch: list[bytes] = []
        item = await self._queue.get()
        while item is not None:
            # More may come: to send each row by itself costs as much as to read a request's features.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._linger)
            while item is not None:
                for row in self._encoded(item):
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

    def _encoded(self, item: _Item) -> Iterator[bytes]:
        """Yield a request's rows, up to one that cannot be encoded; that and what follows are dropped."""
        first, served, chosen = item
        done = 0
        try:
            for row in encode_rows(served, chosen, self._model, self.process, first):
                done += 1
                yield row
        except Exception as failure:  # noqa: BLE001 - whatever it is about one request, the others are logged
            self._count(dropped=len(chosen) - done)
            self._wait(done - len(chosen))
            self._tell(type(failure).__name__)

    def _tell(self, error: str) -> None:
        """Log the type of an error, the first time that there is one: its message may hold a value of the row."""
        if error not in self._told:
            self._told.add(error)
            logging.getLogger(__name__).error("rows of the served log cannot be encoded and are dropped: %s", error)

    async def _send(self, batch: list[bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for row in batch:
            pipeline.xadd(self._key, {ROW_FIELD: row}, maxlen=STREAM_ROWS, approximate=True)
        try:
            # A store that hangs must not keep the rows of minutes in memory: those of this batch are lost, and counted.
            async with asyncio.timeout(_SEND_SECONDS):
                answers = await pipeline.execute(raise_on_error=False)
        except FAILURES as failure:  # TimeoutError is an OSError
            answers = [failure] * len(batch)
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        if failed:
            # The text of an error may hold the row.
            logging.getLogger(__name__).warning(
                "%d rows of the served log were not confirmed: %s", len(failed), kind_of(failed[0])
            )
        self._count(sent=len(batch) - len(failed), dropped=len(failed))
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

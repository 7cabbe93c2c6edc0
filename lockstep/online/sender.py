"""Send the writer's calls to a server: encoded in advance, and the next ones on their way while the server works.

A batch is so many rows in one message of several calls of a script. Two batches are under way at once: the server has the next
before it has answered the last, and the client never holds more. What goes over the wire is made here as text of the protocol,
RESP (https://redis.io/docs/latest/develop/reference/protocol-spec/); redis-py packs one argument at a time, which for a row of
seven fields takes it five times as long. Connection, authentication and answers are redis-py's.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import redis
from redis.exceptions import NoScriptError, ResponseError

from lockstep.online.layout import EncodedRows
from lockstep.online.store import answering, without_refusal

# So many rows share one call of the script: each call costs the client more than a row, and a few dozen rows hold up the
# server's other clients for a fraction of a millisecond.
CALL_ROWS = 64

_UNDER_WAY = 2
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Batch:
    """Rows as they are sent.

    Attributes:
        rows: how many they are.
        message: calls of the script, as text of the protocol.
        calls: how many rows each call has.
        digest: the sum of the SHA-256 of each row as it is sent: key, then fields and values.
    """

    rows: int
    message: bytes
    calls: Sequence[int]
    digest: int


def batch_of(sha: str, rows: EncodedRows, calls: Sequence[int] | None = None) -> Batch:
    """Make one message of rows: calls of the script `sha` with so many rows each, or up to `CALL_ROWS`."""
    keys = [b"\r\n$%d\r\n%b" % (len(key), key) for key in rows.keys]
    named = [_named(field, column) for field, column in zip(rows.fields, rows.columns, strict=True)]
    values = [b"".join(parts) for parts in zip(*named, strict=True)]
    if calls is None:
        calls = [min(CALL_ROWS, len(keys) - start) for start in range(0, len(keys), CALL_ROWS)]
    call = b"\r\n$7\r\nEVALSHA\r\n$%d\r\n%b" % (len(sha), sha.encode())
    heads = {count: _head(call, count, len(rows.fields)) for count in set(calls)}
    message: list[bytes] = []
    start = 0
    for count in calls:
        message.append(heads[count])
        message += keys[start : start + count]
        message += values[start : start + count]
        message.append(b"\r\n")
        start += count
    sha256 = hashlib.sha256
    digest = sum(int.from_bytes(sha256(key + value).digest()) for key, value in zip(keys, values, strict=True))
    return Batch(len(keys), b"".join(message), calls, digest)


def _head(call: bytes, rows: int, fields: int) -> bytes:
    """Return a call up to its first key."""
    count = b"%d" % rows
    return b"*%d%b\r\n$%d\r\n%b" % (3 + rows * (1 + 2 * fields), call, len(count), count)


def _named(field: bytes, column: list[bytes]) -> list[bytes]:
    """Return each value of a field after the field's name; the heads are few, as are the lengths."""
    name = b"\r\n$%d\r\n%b\r\n$" % (len(field), field)
    heads = {length: b"%b%d\r\n" % (name, length) for length in set(map(len, column))}
    return [heads[len(value)] + value for value in column]


def send(server: "redis.Redis", script: str, batches: Iterable[Batch]) -> Iterator[tuple[Batch, int]]:
    """Send batches in order; yield each with what its calls answered, added up.

    Args:
        server: one of its connections is used.
        script: the script that the batches call.
        batches: they are drawn as they are needed, by another thread, one ahead.

    Raises:
        Transient: the server does not answer; what it had accepted stays.
        Terminal: it refuses: full, no permission.
    """
    with Line(server, script) as line:
        for batch in ahead(batches):
            line.send(batch)
            if line.is_full:
                yield _added(*line.answer())
        while line.under_way:
            yield _added(*line.answer())


def _added(batch: Batch, answers: list[Any]) -> tuple[Batch, int]:
    return batch, sum(without_refusal(answers))


class Line:
    """A connection to one server, and the batches under way on it; a context manager.

    Args:
        server: which server.
        script: the script that the batches call.

    Raises:
        Transient: the server does not answer.
    """

    def __init__(self, server: "redis.Redis", script: str) -> None:
        self._pool = server.connection_pool
        self._script = script
        self.under_way: deque[Batch] = deque()
        with answering():
            server.script_load(script)
            self._connection: Any = self._pool.get_connection()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or self.under_way:  # answers that nobody reads must not be taken for another command's
            self._connection.disconnect()
        self._pool.release(self._connection)

    @property
    def is_full(self) -> bool:
        """Whether so many batches are under way that an answer has to be read first."""
        return len(self.under_way) == _UNDER_WAY

    def send(self, batch: Batch) -> None:
        """Put a batch on its way.

        Raises:
            Transient: the server does not answer.
        """
        with answering():
            # The PING of a health check would be answered by a batch.
            self._connection.send_packed_command([batch.message], check_health=False)
        self.under_way.append(batch)

    def answer(self) -> tuple[Batch, list[Any]]:
        """Take the oldest batch off and return it with its answers, refusals among them.

        It is sent once more if the script was flushed meanwhile.

        Raises:
            Transient: the server does not answer.
        """
        with answering():
            answers = _read(self._connection, len(self.under_way[0].calls))
            if any(isinstance(answer, NoScriptError) for answer in answers):
                for later in list(self.under_way)[1:]:
                    _read(self._connection, len(later.calls))  # these are sent again, too: writing again is harmless
                self._connection.send_command("SCRIPT", "LOAD", self._script)
                self._connection.read_response()
                for again in self.under_way:
                    self._connection.send_packed_command([again.message], check_health=False)
                answers = _read(self._connection, len(self.under_way[0].calls))
        return self.under_way.popleft(), answers


def _read(connection: Any, count: int) -> list[Any]:
    """Read so many answers; an error that the server answers with is one of them."""
    answers: list[Any] = []
    for _ in range(count):
        try:
            answers.append(connection.read_response())
        except ResponseError as refused:
            answers.append(refused)
    return answers


def ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield what another thread draws, one item ahead."""
    drawn, end = iter(items), object()
    with ThreadPoolExecutor(1) as other:
        coming = other.submit(next, drawn, end)
        while (item := coming.result()) is not end:
            coming = other.submit(next, drawn, end)
            yield cast("_Item", item)

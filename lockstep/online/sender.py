"""Send the writer's calls to one server: encoded in advance, and the next ones on their way while the server works.

A batch is so many rows in one message of several calls of a script. Two batches are under way at once: the server has the next
before it has answered the last, and the client never holds more. What goes over the wire is made here as text of the protocol,
RESP (https://redis.io/docs/latest/develop/reference/protocol-spec/); redis-py packs one argument at a time, which for a row of
seven fields takes it five times as long. Connection, authentication and answers are redis-py's.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, cast

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
        calls: how many calls.
        digest: the sum of the SHA-256 of each row as it is sent: key, then fields and values.
    """

    rows: int
    message: bytes
    calls: int
    digest: int


def batch_of(sha: str, rows: EncodedRows) -> Batch:
    """Make one message of rows: calls of the script `sha` with up to `CALL_ROWS` rows each."""
    keys = [b"\r\n$%d\r\n%b" % (len(key), key) for key in rows.keys]
    named = [_named(field, column) for field, column in zip(rows.fields, rows.columns, strict=True)]
    values = [b"".join(parts) for parts in zip(*named, strict=True)]
    call = b"\r\n$7\r\nEVALSHA\r\n$%d\r\n%b" % (len(sha), sha.encode())
    message: list[bytes] = []
    starts = range(0, len(keys), CALL_ROWS)
    for start in starts:
        some = keys[start : start + CALL_ROWS]
        count = b"%d" % len(some)
        arguments = 3 + len(some) * (1 + 2 * len(rows.fields))
        message += [b"*%d" % arguments, call, b"\r\n$%d\r\n%b" % (len(count), count), *some]
        message += values[start : start + CALL_ROWS]
        message.append(b"\r\n")
    sha256 = hashlib.sha256
    digest = sum(int.from_bytes(sha256(key + value).digest()) for key, value in zip(keys, values, strict=True))
    return Batch(len(keys), b"".join(message), len(starts), digest)


def _named(field: bytes, column: list[bytes]) -> list[bytes]:
    """Return each value of a field after the field's name; the heads are few, as are the lengths."""
    name = b"\r\n$%d\r\n%b\r\n$" % (len(field), field)
    heads = {length: b"%b%d\r\n" % (name, length) for length in set(map(len, column))}
    return [heads[len(value)] + value for value in column]


def send(redis: "redis.Redis", script: str, batches: Iterable[Batch]) -> Iterator[tuple[Batch, int]]:
    """Send batches in order; yield each with what its calls answered, added up.

    Args:
        redis: a server; one of its connections is used.
        script: the script that the batches call.
        batches: they are drawn as they are needed, by another thread, one ahead.

    Raises:
        Transient: the server does not answer; what it had accepted stays.
        Terminal: it refuses: full, no permission.
    """
    with answering():
        redis.script_load(script)
        connection = cast("Any", redis.connection_pool.get_connection())
    under_way: deque[Batch] = deque()
    whole = False
    try:
        for batch in _ahead(batches):
            with answering():
                connection.send_packed_command(
                    [batch.message], check_health=False
                )  # its PING would be answered by a batch
            under_way.append(batch)
            if len(under_way) == _UNDER_WAY:
                yield _answer(connection, script, under_way)
        while under_way:
            yield _answer(connection, script, under_way)
        whole = True
    finally:
        if not whole:  # answers that nobody reads must not be taken for another command's
            connection.disconnect()
        redis.connection_pool.release(connection)


def _answer(connection: Any, script: str, under_way: deque[Batch]) -> tuple[Batch, int]:
    """Take the oldest batch off and read what it answered; once more if the script was flushed meanwhile."""
    with answering():
        answers = _read(connection, under_way[0].calls)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            for later in list(under_way)[1:]:
                _read(connection, later.calls)  # these are sent again, too: writing again is harmless
            connection.send_command("SCRIPT", "LOAD", script)
            connection.read_response()
            for again in under_way:
                connection.send_packed_command([again.message], check_health=False)
            answers = _read(connection, under_way[0].calls)
    batch = under_way.popleft()
    return batch, sum(without_refusal(answers))


def _read(connection: Any, count: int) -> list[Any]:
    """Read so many answers; an error that the server answers with is one of them."""
    answers: list[Any] = []
    for _ in range(count):
        try:
            answers.append(connection.read_response())
        except ResponseError as refused:
            answers.append(refused)
    return answers


def _ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield what another thread draws, one item ahead."""
    drawn, end = iter(items), object()
    with ThreadPoolExecutor(1) as other:
        coming = other.submit(next, drawn, end)
        while (item := coming.result()) is not end:
            coming = other.submit(next, drawn, end)
            yield cast("_Item", item)

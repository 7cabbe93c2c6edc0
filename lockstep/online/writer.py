"""The one writer: each row is set in one atomic step, and only if it is not older than what is stored.

Two writers, a retry or a stock Feast process may interleave in any way: what stays is the greatest (event, created). So a rerun
changes nothing, and a chunk needs no lock.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import redis
from redis.cluster import RedisCluster
from redis.exceptions import ResponseError

from lockstep.contract import View
from lockstep.errors import BadInput
from lockstep.online.cluster import ask_each, primaries
from lockstep.online.layout import EncodedRows, RowLayout, readable_pair
from lockstep.online.sender import batch_of, send
from lockstep.online.shares import send_shares
from lockstep.online.store import Store, answering

BATCH_ROWS = 10_000

# Answers a row's (event, created) in microseconds, or nothing if there is no row, or one of which nobody could read the time.
# An event time's varint has up to 64 bits, a Lua number 53: it is put together of 28 low and 36 high bits, of which the
# topmost is the sign.
STORED_PAIR = """
local function event_micros(data)
  local seconds, nanos, at = 0, 0, 1
  while at <= #data do
    local tag, low, high, group = string.byte(data, at), 0, 0, 0
    repeat
      at = at + 1
      local byte = string.byte(data, at)
      if not byte then return nil end
      if group < 4 then low = low + (byte % 128) * 128 ^ group
      else high = high + (byte % 128) * 128 ^ (group - 4) end
      group = group + 1
    until byte < 128
    at = at + 1
    if high >= 2 ^ 35 then high = high - 2 ^ 36 end
    local value = high * 2 ^ 28 + low
    if tag == 8 then seconds = value else nanos = value end
  end
  return seconds * 1000000 + math.floor(nanos / 1000)
end
local function stored_pair(key, event_field, pair_field)
  local stored = redis.call('HMGET', key, event_field, pair_field)
  if not stored[1] then return nil end
  local event, created = event_micros(stored[1]), -1
  if not event then return nil end
  if stored[2] and #stored[2] == 16 then
    local pair_event, pair_created = struct.unpack('<i8i8', stored[2])
    if pair_event == event then created = pair_created end
  end
  return event, created
end
"""

# KEYS are entity keys; ARGV is for each of them, one after another, what HSET takes, beginning with the event time and the
# pair of (event, created). Answers how many rows were accepted.
COMPARE_AND_SET = (
    STORED_PAIR
    + """
local function is_older(key, first)
  local stored_event, stored_created = stored_pair(key, ARGV[first], ARGV[first + 2])
  if not stored_event then return false end
  local event, created = struct.unpack('<i8i8', ARGV[first + 3])
  return event < stored_event or (event == stored_event and created < stored_created)
end
local width, accepted = #ARGV / #KEYS, 0
for row, key in ipairs(KEYS) do
  local first = (row - 1) * width + 1
  if not is_older(key, first) then
    redis.call('HSET', key, unpack(ARGV, first, first + width - 1))
    accepted = accepted + 1
  end
end
return accepted
"""
)
_SHA = hashlib.sha1(COMPARE_AND_SET.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Written:
    """What became of the rows.

    Attributes:
        accepted: rows that are stored now.
        rejected: rows that were older than what was stored.
        digest: the sum of the SHA-256 of each row as it is sent (`sender.Batch`), modulo 2^256, as 64 hexadecimal digits: the
            same for the same rows in any order and in any parts, see `add_digests`.
    """

    accepted: int
    rejected: int
    digest: str


def check_store(store: Store) -> str:
    """Refuse a store that may drop rows by itself; return a note for the log where that cannot be known, else "".

    Raises:
        BadInput: its `maxmemory-policy` evicts, or that of one of its primaries.
        Transient: it does not answer.
    """
    return next(filter(None, [_check_server(primary.client) for primary in primaries(store)]), "")


def _check_server(server: "redis.Redis") -> str:
    with answering():
        try:
            found = cast("dict[str, Any]", server.info("memory")).get("maxmemory_policy")
        except ResponseError as refused:
            found = None
            reason = str(refused)
        else:
            reason = "INFO memory does not say"
    if found is None:
        return f"maxmemory-policy could not be read ({reason}); make sure that it is noeviction"
    if found != "noeviction":
        raise BadInput(
            f"the online store evicts rows when its memory is full: maxmemory-policy is {found}",
            hint="set it to noeviction: a full store must fail a write, not forget another",
        )
    return ""


def write_rows(
    store: Store,
    project: str,
    view: View,
    rows: pa.Table,
    *,
    progress: Callable[[int], None] | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Written:
    """Write rows, at most one per key; see `write_parts`."""
    return write_parts(store, project, view, [rows], progress=progress, batch_rows=batch_rows)


def write_parts(
    store: Store,
    project: str,
    view: View,
    parts: Iterable[pa.Table],
    *,
    progress: Callable[[int], None] | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Written:
    """Write rows, each unless something newer is stored; equal (event, created) is written again, to no effect.

    Args:
        store: the online store.
        project: whose keys.
        view: which view.
        parts: rows, with its join keys, its columns, `event_timestamp` and `created_timestamp`; at most one row per key. They
            are drawn by another thread, while the store is at work on those before.
        progress: told the number of rows of each batch that was answered.
        batch_rows: how many rows are sent at once, to each primary of a cluster.

    Raises:
        BadInput: a join key or a time is null, or a time is out of range.
        SchemaDrift: a column is missing or has another type than the view declares.
        NotYetSupported: the layout does not hold such a view.
        Transient: the store does not answer, or hands slots from one primary to the other faster than rows can follow; what it
            had accepted stays, and writing again is harmless.
        Terminal: the store refuses: full, no permission.
    """
    layout = RowLayout(project, view)
    rows = accepted = digest = 0
    if isinstance(store, RedisCluster):
        step = batch_rows * len(store.get_primaries())
        answers = send_shares(store, COMPARE_AND_SET, _encoded(layout, parts, step))
    else:
        batches = (batch_of(_SHA, part) for part in _encoded(layout, parts, batch_rows))
        answers = send(store, COMPARE_AND_SET, batches)
    for batch, answered in answers:
        rows, accepted, digest = rows + batch.rows, accepted + answered, digest + batch.digest
        if progress is not None:
            progress(batch.rows)
    return Written(accepted, rows - accepted, _digest(digest))


def _encoded(layout: RowLayout, parts: Iterable[pa.Table], step: int) -> Iterator[EncodedRows]:
    for part in parts:
        layout.require(part)
        for start in range(0, part.num_rows, step):
            yield layout.encode(part.slice(start, step))


def add_digests(digests: Iterable[str]) -> str:
    """Return the digest of all rows that these are the digests of."""
    return _digest(sum(int(digest, 16) for digest in digests))


def _digest(total: int) -> str:
    return f"{total % (1 << 256):064x}"


def read_back(store: Store, project: str, view: View, rows: pa.Table) -> list[int]:
    """Return the indices of rows whose stored bytes are not theirs; a newer stored row is no mismatch.

    Raises:
        The same as `write_rows`.
    """
    layout = RowLayout(project, view)
    layout.require(rows)
    differing: list[int] = []
    for start in range(0, rows.num_rows, BATCH_ROWS):
        encoded = layout.encode(rows.slice(start, BATCH_ROWS))
        stored: list[list[bytes | None]] = ask_each(store, (("HMGET", key, *encoded.fields) for key in encoded.keys))
        wanted = zip(*encoded.columns, strict=True)
        for row, (found, fields, pair) in enumerate(zip(stored, wanted, encoded.pairs, strict=True)):
            if tuple(found) != fields and not is_newer(found, pair):
                differing.append(start + row)
    return differing


def is_newer(found: Sequence[bytes | None], pair: tuple[int, int]) -> bool:
    """Tell whether the fields that are stored of a key, times first, are of a later row than one of these times."""
    stored = None if found[0] is None else readable_pair(found[0], found[1])
    return stored is not None and stored > pair

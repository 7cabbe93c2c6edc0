"""Take back rows that are online and not in the lake any more: one atomic step a key, and never something newer.

`writer.write_rows` only goes forward. Where the lake's newest row of a key was deleted, the key has to go back to an older row,
or to none. That is allowed up to a *limit*, the (event, created) of what was taken away: a row that is newer stays.
"""

import struct
from collections.abc import Iterator
from itertools import chain, islice

import pyarrow as pa

from lockstep.contract import Column, View
from lockstep.online.cluster import SCAN_KEYS, ask_each, scan
from lockstep.online.layout import (
    EntityKeys,
    RowLayout,
    event_field,
    fields_of,
    pair_field,
    readable_pair,
)
from lockstep.online.store import Store
from lockstep.online.writer import STORED_PAIR, is_newer
from lockstep.views.declare import ARROW_TYPES, EVENT_TIMESTAMP

# Columns that no feature can be called.
LIMIT_EVENT, LIMIT_CREATED = "limit.event", "limit.created"

_PAIR = struct.Struct("<qq")
_BATCH_ROWS = 10_000
_TIME = ARROW_TYPES["timestamp"]

# ARGV: the limit, whether exactly that has to be stored, how many fields, their names (event time and pair first), and what they
# hold now; no values: the row is gone.
_TAKE_BACK = (
    STORED_PAIR
    + """
local count = tonumber(ARGV[3])
local event, created = stored_pair(KEYS[1], ARGV[4], ARGV[5])
local limit_event, limit_created = struct.unpack('<i8i8', ARGV[1])
if ARGV[2] == '1' and not (event == limit_event and created == limit_created) then return 0 end
if event and (event > limit_event or (event == limit_event and created > limit_created)) then return 0 end
redis.call('HDEL', KEYS[1], unpack(ARGV, 4, 3 + count))
for field = 4, 3 + count do
  if ARGV[field + count] then redis.call('HSET', KEYS[1], ARGV[field], ARGV[field + count]) end
end
return 1
"""
)

# ARGV: what the event time and the pair have to hold, then the fields that go, which begin with these two.
_REMOVE = """
local stored = redis.call('HMGET', KEYS[1], ARGV[3], ARGV[4])
if stored[1] ~= ARGV[1] or (stored[2] or '') ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], unpack(ARGV, 3))
return 1
"""


def take_back(store: Store, project: str, view: View, rows: pa.Table, *, exactly: bool = False) -> tuple[int, int]:
    """Put each key's row in place of what is stored, or remove it where the row is null, unless something newer is stored.

    Args:
        store: the online store.
        project: whose keys.
        view: which view.
        rows: its join keys, its columns and times, all of them null for a key that has no row, and `LIMIT_EVENT` and
            `LIMIT_CREATED`; at most one row a key.
        exactly: only where the very row of the limit is stored: whoever has changed it since it was seen knows more.

    Returns:
        How many keys are as the rows say now, and how many are newer (or have changed, if it is `exactly`).

    Raises:
        The same as `write_rows`.
    """
    done = 0
    for start in range(0, rows.num_rows, _BATCH_ROWS):
        encoded = _encoded(project, view, rows.slice(start, _BATCH_ROWS))
        calls = (
            ("EVAL", _TAKE_BACK, 1, key, _PAIR.pack(*limit), int(exactly), *arguments)
            for key, limit, arguments in encoded
        )
        done += sum(ask_each(store, calls))
    return done, rows.num_rows - done


def not_taken_back(store: Store, project: str, view: View, rows: pa.Table) -> list[int]:
    """Return the indices of rows that `take_back` was given and that are not stored so, nor anything newer than their limit.

    Raises:
        The same as `write_rows`.
    """
    fields = fields_of(view)
    differing: list[int] = []
    for start in range(0, rows.num_rows, _BATCH_ROWS):
        wanted = list(_encoded(project, view, rows.slice(start, _BATCH_ROWS)))
        stored = ask_each(store, (("HMGET", key, *fields) for key, _, _ in wanted))
        for row, (found, (_, limit, arguments)) in enumerate(zip(stored, wanted, strict=True)):
            values = list(arguments[1 + len(fields) :]) or [None] * len(fields)
            if found != values and not is_newer(found, limit):
                differing.append(start + row)
    return differing


class StoredTimes:
    """The keys that have a row of a view online, each with the row's two times as its limit: an iterable of tables, drawn once.

    The store is looked through for them. A created time that is not known (a stock Feast writer does not store one) is the least
    there is.

    Args:
        store: the online store.
        project: whose keys.
        view: which view.

    Raises:
        Transient: the store does not answer, or slots of it were moved while it was looked through.
    """

    def __init__(self, store: Store, project: str, view: View) -> None:
        self._store = store
        self._view = view
        self._keys = EntityKeys(project, view.join_keys)
        self.unreadable: list[tuple[bytes, bytes, bytes]] = []
        """The Redis keys seen so far whose times are none that this library writes, nor Feast, each with what it held."""

    def __iter__(self) -> Iterator[pa.Table]:
        (join_key,) = self._view.join_keys
        found = chain.from_iterable(scan(self._store, SCAN_KEYS, match=self._keys.pattern(), _type="HASH"))
        while batch := list(islice(found, _BATCH_ROWS)):
            if rows := list(self._times(batch)):
                yield _table(join_key, rows)

    def _times(self, batch: list[bytes]) -> Iterator[tuple[object, int, int]]:
        event, pair = event_field(self._view.name), pair_field(self._view.name)
        stored = ask_each(self._store, (("HMGET", key, event, pair) for key in batch))
        for key, (stored_event, stored_pair) in zip(batch, stored, strict=True):
            value = self._keys.value_of(key)
            if value is None or stored_event is None:
                continue
            times = readable_pair(stored_event, stored_pair)
            if times is None:
                self.unreadable.append((key, stored_event, stored_pair or b""))
            else:
                yield value, *times

    def remove_unreadable(self) -> int:
        """Remove the view's fields of keys whose times cannot be read, unless they changed; return how many keys that were."""
        fields = fields_of(self._view)
        calls = (("EVAL", _REMOVE, 1, key, event, pair, *fields) for key, event, pair in self.unreadable)
        return sum(ask_each(self._store, calls))


def _table(join_key: Column, rows: list[tuple[object, int, int]]) -> pa.Table:
    values, events, created = (list(column) for column in zip(*rows, strict=True))
    limits = [pa.array(micros, pa.int64()).cast(_TIME) for micros in (events, created)]
    return pa.table(
        [pa.array(values, ARROW_TYPES[join_key.dtype]), *limits], [join_key.name, LIMIT_EVENT, LIMIT_CREATED]
    )


def _encoded(project: str, view: View, rows: pa.Table) -> Iterator[tuple[bytes, tuple[int, int], list[int | bytes]]]:
    """Yield each row's key, its limit in microseconds, and what the script takes besides."""
    fields = fields_of(view)
    names = [len(fields), *fields]
    keys = EntityKeys(project, view.join_keys).encode({k.name: rows[k.name].to_pylist() for k in view.join_keys})
    limits = zip(*(rows[name].cast(pa.int64()).to_pylist() for name in (LIMIT_EVENT, LIMIT_CREATED)), strict=True)
    layout, there = RowLayout(project, view), rows.filter(rows[EVENT_TIMESTAMP].is_valid())
    layout.require(there)
    values = zip(*layout.encode(there).columns, strict=True)
    is_there = rows[EVENT_TIMESTAMP].is_valid().to_pylist()
    for key, limit, present in zip(keys, limits, is_there, strict=True):
        yield key, limit, [*names, *(next(values) if present else ())]

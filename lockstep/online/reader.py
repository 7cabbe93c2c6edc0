"""The reader: rows of many entities and views in one round trip, by a plan that is made of the contract alone.

One message reads the epoch hash, then one HMGET per entity key with the fields of all its views, then the epoch hash again. Redis
answers in that order, so what was being written meanwhile shows in the difference of the two. It is no transaction: that would
hold up the server's other clients and say no more. Nor is it redis-py's pipeline, which took half of a read's time to encode the
same fields anew for each entity, and to set a timer for each answer.

What is read is reported as it is stored. Whether a row is *missing* or *stale* follows from its stored event time, never from
Feast's status, which says PRESENT of both.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, Literal, cast

import redis.asyncio
from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from lockstep.contract import FeatureContract, View
from lockstep.errors import BadInput
from lockstep.online.epoch import Epochs, epoch_key, parse
from lockstep.online.layout import EntityKeys, decode_pair, field_of, fields_of, require_distinct
from lockstep.online.store import answering, connect_async, meaning
from lockstep.online.values import decode_column
from lockstep.settings import Settings
from lockstep.views.declare import DataType

Status = Literal["present", "missing", "stale"]
Cells = Sequence[bytes | None]

# Rows of ticked views share their times: many rows, few pairs.
_times = lru_cache(maxsize=4_096)(decode_pair)


@dataclass(frozen=True)
class ViewRows:
    """What was read of one view, one item per request row.

    Attributes:
        status: *missing*: nothing is stored; *stale*: at the request time it was older than its ttl.
        event_us: the stored row's event time in microseconds; None where missing.
        created_us: its created time; None where missing, -1 where another writer did not say.
        values: for each column the values as stored, also of stale rows; None for null.
    """

    status: list[Status]
    event_us: list[int | None]
    created_us: list[int | None]
    values: dict[str, list[Any]]

    def usable(self, column: str) -> list[Any]:
        """Return the values a model may use: None where the row is missing or stale."""
        pairs = zip(self.status, self.values[column], strict=True)
        return [value if status == "present" else None for status, value in pairs]


@dataclass(frozen=True)
class Reading:
    """One reading of the store: the epoch hash before and after, and the rows of each view in between."""

    before: Epochs
    after: Epochs
    views: dict[str, ViewRows]


@dataclass(frozen=True)
class _Slice:
    """Where a view's fields are in its entity's HMGET."""

    view: View
    start: int

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, which come after the two times."""
        return tuple(column.name for column in self.view.columns)


@dataclass(frozen=True)
class _Group:
    """The views that share their join keys, and so a Redis hash per entity."""

    keys: EntityKeys
    fields: tuple[bytes, ...]
    slices: tuple[_Slice, ...]

    @cached_property
    def _around_key(self) -> tuple[bytes, bytes]:
        return b"*%d\r\n" % (2 + len(self.fields)) + _packed(b"HMGET"), _packed(*self.fields)

    @cached_property
    def _typed(self) -> Mapping[DataType, list[int]]:
        places: dict[DataType, list[int]] = defaultdict(list)
        for part in self.slices:
            for place, column in enumerate(part.view.columns, part.start + 2):
                places[column.dtype].append(place)
        return places

    def decode(self, cells: Sequence[Cells]) -> list[list[Any]]:
        """Return the columns' values, each in its field's place; all columns of a type are decoded in one go."""
        values: list[list[Any]] = [[]] * len(cells)  # the times' places stay empty
        rows = len(cells[0])
        for dtype, places in self._typed.items():
            decoded = decode_column(list(chain.from_iterable([cells[place] for place in places])), dtype)
            for number, place in enumerate(places):
                values[place] = decoded[number * rows : (number + 1) * rows]
        return values

    def commands(self, keys: Iterable[bytes]) -> bytes:
        """Return an HMGET of the fields for each key, as Redis is sent them."""
        head, tail = self._around_key
        return b"".join([b"%b$%d\r\n%b\r\n%b" % (head, len(key), key, tail) for key in keys])


@dataclass(frozen=True)
class ReadPlan:
    """What to read for one contract."""

    epoch_key: str
    order: tuple[str, ...]
    groups: tuple[_Group, ...]

    @classmethod
    def compile(cls, contract: FeatureContract) -> "ReadPlan":
        """Make the plan of a contract.

        Raises:
            NotYetSupported: a join key's type, or two features whose fields collide.
        """
        shared: dict[tuple[tuple[str, str], ...], list[View]] = {}
        for view in contract.views:
            shared.setdefault(tuple(sorted((k.name, k.dtype) for k in view.join_keys)), []).append(view)
        groups = tuple(_group(contract.project, views) for views in shared.values())
        return cls(epoch_key(contract.project), tuple(view.name for view in contract.views), groups)


def _packed(*words: bytes) -> bytes:
    """Return words of a command as the Redis protocol has them."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def _group(project: str, views: Sequence[View]) -> _Group:
    require_distinct({(v.name, c.name): field_of(v.name, c.name) for v in views for c in v.columns})
    fields: list[bytes] = []
    slices: list[_Slice] = []
    for view in views:
        slices.append(_Slice(view, len(fields)))
        fields.extend(fields_of(view))
    return _Group(EntityKeys(project, views[0].join_keys), tuple(fields), tuple(slices))


class OnlineReader:
    """Reads the rows that a contract names.

    Args:
        redis: an asyncio client with `decode_responses` off; closed by its owner. The reader keeps the connections it has used.
        plan: what to read.
    """

    def __init__(self, redis: "redis.asyncio.Redis", plan: ReadPlan) -> None:
        self._redis = redis
        self._plan = plan
        self._epoch_command = b"*2\r\n" + _packed(b"HGETALL", plan.epoch_key.encode())
        self._idle: list[AbstractConnection] = []
        self._last: tuple[Any, Epochs] = ([], parse({}))

    async def read(self, entities: Mapping[str, Sequence[Any]], times_us: Sequence[int]) -> Reading:
        """Read one row per request row from every view.

        Args:
            entities: each join key's values; all of one length. An entity that is named twice is read once.
            times_us: each row's request time in microseconds, which its ttl is judged at.

        Raises:
            BadInput: a join key is missing, has a value of another type, or not one for each request time.
            SchemaDrift: the store holds bytes that the contract's types do not explain.
            Transient: the store does not answer.
            Terminal: the store refuses.
        """
        keys = [self._keys(group, entities, len(times_us)) for group in self._plan.groups]
        distinct = [dict.fromkeys(of_group) for of_group in keys]
        commands = [group.commands(of_group) for group, of_group in zip(self._plan.groups, distinct, strict=True)]
        message = b"".join((self._epoch_command, *commands, self._epoch_command))
        with answering():
            answers = await self._ask(message, sum(map(len, distinct)) + 2)
        refused = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if refused is not None:
            raise meaning(refused) from refused

        before, after = self._epochs(answers[0]), self._epochs(answers[-1])
        views: dict[str, ViewRows] = {}
        start = 1
        for group, rows, wanted in zip(self._plan.groups, keys, distinct, strict=True):
            stored = answers[start : start + len(wanted)]
            start += len(wanted)
            cells: list[Cells] = list(zip(*stored, strict=True)) or [()] * len(group.fields)
            values = group.decode(cells)
            index = None
            if len(wanted) < len(rows):
                places = {key: place for place, key in enumerate(wanted)}
                index = [places[key] for key in rows]
            for part in group.slices:
                views[part.view.name] = _view_rows(part, cells, values, index, times_us)
        return Reading(before, after, {name: views[name] for name in self._plan.order})

    @staticmethod
    def _keys(group: _Group, entities: Mapping[str, Sequence[Any]], rows: int) -> list[bytes]:
        for key in group.keys.join_keys:
            if key.name in entities and len(entities[key.name]) != rows:
                raise BadInput(f"{len(entities[key.name])} values of the join key {key.name} for {rows} request times")
        return group.keys.encode(entities)

    async def _ask(self, message: bytes, answers: int) -> list[Any]:
        # A pool looks whether anything came on a connection before it lends it, which takes a fifth of a small read's time.
        # One that is kept may have been closed meanwhile, as by a server that started again: then another one is asked.
        while self._idle:
            with suppress(exceptions.ConnectionError):
                return await self._ask_on(self._idle.pop(), message, answers)
        return await self._ask_on(await self._redis.connection_pool.get_connection(), message, answers)

    async def _ask_on(self, connection: AbstractConnection, message: bytes, answers: int) -> list[Any]:
        try:
            found = await _exchange(connection, message, answers)
        except BaseException:
            await self._redis.connection_pool.release(connection)
            raise
        self._idle.append(connection)
        return found

    def _epochs(self, raw: Any) -> Epochs:
        # It changes a few times an hour and is read twice a request.
        if raw != self._last[0]:
            fields = raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True))  # RESP3, RESP2
            self._last = (raw, parse(cast("dict[bytes, bytes]", fields)))
        return self._last[1]


async def _exchange(connection: AbstractConnection, message: bytes, answers: int) -> list[Any]:
    """Send the message and return its answers, refusals among them.

    A connection on which this was given up is closed by redis-py, so that no late answer is taken for the next one's.
    """
    # One timer for all the answers, in place of redis-py's for each.
    seconds, connection.socket_timeout = connection.socket_timeout, None
    found: list[Any] = []
    try:
        async with asyncio.timeout(seconds):
            await connection.send_packed_command(message)
            for _ in range(answers):
                try:
                    found.append(await connection.read_response())
                except exceptions.ResponseError as refused:
                    found.append(refused)
    except TimeoutError as late:
        raise exceptions.TimeoutError(f"{len(found)} of {answers} answers came in {seconds:g} s") from late
    finally:
        connection.socket_timeout = seconds
    return found


def _view_rows(
    part: _Slice,
    cells: Sequence[Cells],
    decoded: Sequence[list[Any]],
    index: Sequence[int] | None,
    times_us: Sequence[int],
) -> ViewRows:
    """Lay out what was read of a view's entities per request row."""
    start, ttl_us = part.start, part.view.ttl_us
    pairs = [
        _times(event, pair) if event is not None else (None, None)
        for event, pair in zip(cells[start], cells[start + 1], strict=True)
    ]
    first = start + 2
    values = dict(zip(part.columns, decoded[first : first + len(part.columns)], strict=True))
    if index is not None:
        pairs = [pairs[row] for row in index]
        values = {name: [column[row] for row in index] for name, column in values.items()}
    event_us = [event for event, _ in pairs]
    status: list[Status] = [
        "missing" if event is None else "stale" if ttl_us and time - event > ttl_us else "present"
        for event, time in zip(event_us, times_us, strict=True)
    ]
    return ViewRows(status, event_us, [created for _, created in pairs], values)


def read_online(
    settings: Settings, contract: FeatureContract, entities: Mapping[str, Sequence[Any]], times_us: Sequence[int]
) -> Reading:
    """Read once, with a connection of its own, for scripts and tests; see `OnlineReader.read`. Not inside an event loop."""

    async def read() -> Reading:
        async with connect_async(settings) as client:
            return await OnlineReader(client, ReadPlan.compile(contract)).read(entities, times_us)

    return asyncio.run(read())

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
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, Literal, NamedTuple

from redis.asyncio.cluster import RedisCluster

from lockstep.contract import FeatureContract, View
from lockstep.errors import BadInput
from lockstep.online.cluster_reader import ClusterReader
from lockstep.online.copies import epoch_key
from lockstep.online.epoch import Epochs, combine, parse
from lockstep.online.exchange import Exchange, hash_of, packed, read_hash
from lockstep.online.layout import EntityKeys, decode_pair, field_of, fields_of, require_distinct
from lockstep.online.store import StoreAsync, answering, connect_async, without_refusal
from lockstep.online.values import decode_column
from lockstep.settings import Settings
from lockstep.views.declare import DataType

Status = Literal["present", "missing", "stale"]
Cells = Sequence[bytes | None]

# Rows of ticked views share their times: many rows, few pairs.
_times = lru_cache(maxsize=4_096)(decode_pair)


class ViewRows(NamedTuple):
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


class Reading(NamedTuple):
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
    def columns(self) -> tuple[tuple[str, int], ...]:
        """The columns by name, each with its place; they come after the two times."""
        return tuple((column.name, place) for place, column in enumerate(self.view.columns, self.start + 2))


@dataclass(frozen=True)
class _Group:
    """The views that share their join keys, and so a Redis hash per entity."""

    keys: EntityKeys
    fields: tuple[bytes, ...]
    slices: tuple[_Slice, ...]

    @cached_property
    def _around_key(self) -> tuple[bytes, bytes]:
        return b"*%d\r\n" % (2 + len(self.fields)) + packed(b"HMGET"), packed(*self.fields)

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

    def commands(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return an HMGET of the fields for each key, as Redis is sent them."""
        head, tail = self._around_key
        return [b"%b$%d\r\n%b\r\n%b" % (head, len(key), key, tail) for key in keys]


@dataclass(frozen=True)
class ReadPlan:
    """What to read for one contract."""

    project: str
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
        return cls(contract.project, tuple(view.name for view in contract.views), groups)


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
        store: an asyncio client with `decode_responses` off; closed by its owner, after the reader, which keeps the connections
            it has used.
        plan: what to read.
    """

    def __init__(self, store: StoreAsync, plan: ReadPlan) -> None:
        self._plan = plan
        self._epoch_command = read_hash(epoch_key(plan.project))
        self._last: tuple[Any, Epochs] = ([], parse({}))
        if isinstance(store, RedisCluster):
            self._cluster = ClusterReader(store, plan.project)
        else:
            self._cluster, self._server = None, Exchange.with_server(store)

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
        if self._cluster is None:
            found, before, after = await self._ask(commands)
        else:
            found, before, after = await self._ask_cluster(self._cluster, distinct, commands)
        views: dict[str, ViewRows] = {}
        start = 0
        for group, rows, wanted in zip(self._plan.groups, keys, distinct, strict=True):
            stored = found[start : start + len(wanted)]
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

    async def aclose(self) -> None:
        """Give the connections back to the client, and end what is being opened or looked up."""
        await (self._server if self._cluster is None else self._cluster).aclose()

    @staticmethod
    def _keys(group: _Group, entities: Mapping[str, Sequence[Any]], rows: int) -> list[bytes]:
        for key in group.keys.join_keys:
            if key.name in entities and len(entities[key.name]) != rows:
                raise BadInput(f"{len(entities[key.name])} values of the join key {key.name} for {rows} request times")
        return group.keys.encode(entities)

    async def _ask(self, commands: Sequence[list[bytes]]) -> tuple[list[Any], Epochs, Epochs]:
        message = b"".join((self._epoch_command, *chain.from_iterable(commands), self._epoch_command))
        with answering():
            answers = without_refusal(await self._server.ask(message, sum(map(len, commands)) + 2))
        return answers[1:-1], self._epochs(answers[0]), self._epochs(answers[-1])

    @staticmethod
    async def _ask_cluster(
        cluster: ClusterReader, keys: Sequence[Iterable[bytes]], commands: Sequence[list[bytes]]
    ) -> tuple[list[Any], Epochs, Epochs]:
        keyed = zip(chain.from_iterable(keys), chain.from_iterable(commands), strict=True)
        with answering():
            answers = await cluster.ask(list(keyed))
        return answers.found, combine(answers.before), combine(answers.after)

    def _epochs(self, raw: Any) -> Epochs:
        # It changes a few times an hour and is read twice a request.
        if raw != self._last[0]:
            self._last = (raw, parse(hash_of(raw)))
        return self._last[1]


def _view_rows(
    part: _Slice,
    cells: Sequence[Cells],
    decoded: Sequence[list[Any]],
    index: Sequence[int] | None,
    times_us: Sequence[int],
) -> ViewRows:
    """Lay out what was read of a view's entities per request row."""
    start, ttl_us = part.start, part.view.ttl_us
    events, pairs = cells[start], cells[start + 1]
    values = {name: decoded[place] for name, place in part.columns}
    if index is not None:
        events, pairs = [events[row] for row in index], [pairs[row] for row in index]
        values = {name: [column[row] for row in index] for name, column in values.items()}
    status: list[Status] = []
    event_us: list[int | None] = []
    created_us: list[int | None] = []
    for event, pair, time in zip(events, pairs, times_us, strict=True):
        if event is None:
            happened = created = None
            status.append("missing")
        else:
            happened, created = _times(event, pair)
            status.append("stale" if ttl_us and time - happened > ttl_us else "present")
        event_us.append(happened)
        created_us.append(created)
    return ViewRows(status, event_us, created_us, values)


def read_online(
    settings: Settings, contract: FeatureContract, entities: Mapping[str, Sequence[Any]], times_us: Sequence[int]
) -> Reading:
    """Read once, with a connection of its own, for scripts and tests; see `OnlineReader.read`. Not inside an event loop."""

    async def read() -> Reading:
        client = connect_async(settings)
        try:
            async with aclosing(OnlineReader(client, ReadPlan.compile(contract))) as reader:
                return await reader.read(entities, times_us)
        finally:
            await client.aclose()

    return asyncio.run(read())

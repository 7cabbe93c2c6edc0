"""The reader's round trip to a Redis Cluster: one message to each primary concerned, all at once.

Each message is bracketed by that primary's own copy of the epoch hash, which vouches for the slots that it says it is of: what is
read elsewhere, or of other slots, is told without the store's name. A primary that hands slots to another says so: then the
cluster is asked who has which, and all is read anew; of a slot that is on its way, the rows that have gone are fetched from where
they are.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

from redis import exceptions
from redis.asyncio.cluster import ClusterNode, RedisCluster

from lockstep.online.cluster import Layout, is_moving, moving
from lockstep.online.copies import SLOTS, epoch_key
from lockstep.online.epoch import Epochs, parse
from lockstep.online.exchange import Exchange, hash_of, packed, read_hash
from lockstep.online.store import without_refusal

_TRIES = 4
# How often a copy that is missing, or is of other slots, makes us ask the cluster who has which; it stays so until the next run.
_LOOK_AGAIN_SECONDS = 1.0
# How long one node after the other is waited for that is asked who has which.
_NODE_SECONDS = 1.0
_ASKING = b"*1\r\n" + packed(b"ASKING")


@dataclass(frozen=True)
class Answers:
    """What one round trip brought.

    Attributes:
        found: the answer to each command.
        before: what the copy of the epoch hash said before them, of each primary that was asked; without the store's name where
            the copy does not vouch for what was read there.
        after: the same after them.
    """

    found: list[Any]
    before: list[Epochs]
    after: list[Epochs]


@dataclass(frozen=True)
class _Routes:
    """Whom to ask for what; never changed, so that a read which takes it once has parts that belong together.

    Attributes:
        layout: which primary has which slot.
        copies: for each primary the command that reads its copy of the epoch hash.
    """

    layout: Layout
    copies: tuple[bytes, ...]

    @classmethod
    def to(cls, layout: Layout, project: str) -> "_Routes":
        return cls(layout, tuple(read_hash(epoch_key(project, shard.tag)) for shard in layout.shards))


@dataclass(frozen=True)
class _Part:
    """What one primary answered.

    Attributes:
        before: its copy of the epoch hash before the rows, as it is stored.
        after: the same after them.
        slots: of which slots the copy has to be to vouch for the rows; None for rows of a slot that is not the primary's yet.
    """

    before: Any
    after: Any
    slots: str | None


class ClusterReader:
    """Asks the primaries of a cluster.

    Args:
        cluster: an asyncio client; closed by its owner.
        project: whose epoch hash.
    """

    def __init__(self, cluster: RedisCluster, project: str) -> None:
        self._cluster = cluster
        self._project = project
        self._routes: _Routes | None = None
        self._looking: asyncio.Task[_Routes] | None = None
        self._looked = 0.0
        self._exchanges: dict[str, tuple[ClusterNode, Exchange]] = {}

    async def ask(self, commands: Sequence[tuple[bytes, bytes]]) -> Answers:
        """Send commands, each given with the key that it is about, and return what they answer.

        Raises:
            Transient: slots are moved faster than they can be followed.
            LockstepError: what the first refusal means, see `store.meaning`.
            redis.RedisError: a primary does not answer.
        """
        failure: Exception = moving("again and again")
        for _ in range(_TRIES):
            routes = self._routes or await self._look()
            try:
                found, parts = await self._ask(routes, commands)
            except (exceptions.ConnectionError, exceptions.TimeoutError) as unanswered:
                # Perhaps a replica was promoted: then it is asked, but nobody is asked twice.
                if routes == await self._look():
                    raise
                failure = unanswered
                continue
            except asyncio.CancelledError:
                # A primary that hangs ends a request by its deadline, long before the socket's: the next one follows a failover.
                self._look_beside()
                raise
            told = [*found, *(copy for part in parts for copy in (part.before, part.after))]
            if any(map(is_moving, told)):
                await self._look()
                continue
            # A primary that was cut off from the others says that the cluster is down: they may have another one by now.
            is_down = any(isinstance(answer, exceptions.ClusterDownError) for answer in told)
            if is_down and routes != await self._look():
                continue
            without_refusal(told)
            answers = _answers(found, parts)
            if self._is_vouched(answers) or routes == await self._look():
                return answers
        raise failure

    async def _ask(self, routes: _Routes, commands: Sequence[tuple[bytes, bytes]]) -> tuple[list[Any], list[_Part]]:
        """Return the answer to each command, and what the primaries say of themselves; refusals among them."""
        layout = routes.layout
        shares: dict[int, list[int]] = {}
        for number, (key, _) in enumerate(commands):
            shares.setdefault(layout.owner(key), []).append(number)
        if not shares:
            shares[0] = []
        texts = [command for _, command in commands]
        asked = await _together(
            self._exchange(layout.shards[owner].node).ask(
                b"".join((routes.copies[owner], *[texts[number] for number in share], routes.copies[owner])),
                len(share) + 2,
            )
            for owner, share in shares.items()
        )
        found: list[Any] = [None] * len(commands)
        parts: list[_Part] = []
        for owner, answers in zip(shares, asked, strict=True):
            parts.append(_Part(_unless_gone(answers[0]), _unless_gone(answers[-1]), layout.shards[owner].slots))
            for number, answer in zip(shares[owner], answers[1:-1], strict=True):
                found[number] = answer
        return found, [*parts, *await self._follow(routes, texts, found)]

    async def _follow(self, routes: _Routes, texts: Sequence[bytes], found: list[Any]) -> list[_Part]:
        """Fetch rows of slots that are on their way from where they have gone to."""
        gone: dict[tuple[str, int], list[int]] = {}
        for number, answer in enumerate(found):
            if _is_gone(answer):
                gone.setdefault((answer.host, answer.port), []).append(number)
        parts: list[_Part] = []
        for (host, port), share in gone.items():
            name = f"{host}:{port}"
            shards = zip(routes.layout.shards, routes.copies, strict=True)
            # A primary that has no slot yet has no copy either: nothing is known of its rows.
            copy = next((copy for shard, copy in shards if shard.node == name), b"")
            asked = b"".join(_ASKING + texts[number] for number in share)
            around = 1 if copy else 0
            answers = await self._exchange(name).ask(b"".join((copy, asked, copy)), 2 * (len(share) + around))
            around_rows = (_unless_gone(answers[0]), _unless_gone(answers[-1])) if copy else ([], [])
            parts.append(_Part(*around_rows, None))
            rows = answers[around : len(answers) - around]
            for number, answer in zip(share, rows[1::2], strict=True):
                found[number] = answer
        return parts

    def _is_vouched(self, answers: Answers) -> bool:
        """Tell whether what was read is vouched for, as far as it is time to look again."""
        return time.monotonic() - self._looked < _LOOK_AGAIN_SECONDS or all(
            epochs.incarnation for epochs in chain(answers.before, answers.after)
        )

    async def aclose(self) -> None:
        """Give the connections back, to be closed by the cluster's owner."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for _, exchange in self._exchanges.values():
            await exchange.aclose()

    async def _look(self) -> _Routes:
        """Ask the cluster which primary has which slot, once for all reads that want to know it at the same time."""
        return await asyncio.shield(self._look_up())  # a read that is given up must not end it for the others

    def _look_beside(self) -> None:
        """Ask the same for reads to come, if it is time to."""
        if time.monotonic() - self._looked >= _LOOK_AGAIN_SECONDS:
            self._look_up()

    def _look_up(self) -> "asyncio.Task[_Routes]":
        if self._looking is None:
            self._looked = (
                time.monotonic()
            )  # also if nobody answers: who is not vouched for does not ask at once again
            self._looking = asyncio.create_task(self._found())
            self._looking.add_done_callback(self._has_looked)
        return self._looking

    def _has_looked(self, task: "asyncio.Task[_Routes]") -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()  # seen, also if all reads that waited for it were given up

    async def _found(self) -> _Routes:
        await self._ask_nodes()
        await self._leave_removed()
        layout = Layout.of(self._cluster.nodes_manager.slots_cache)
        if self._routes is None or layout != self._routes.layout:
            self._routes = _Routes.to(layout, self._project)
        return self._routes

    async def _ask_nodes(self) -> None:
        """Ask one node after the other, as redis-py does, but for as long as a look may take, not a socket."""
        nodes = self._cluster.nodes_manager.startup_nodes
        for first in list(nodes):
            with suppress(TimeoutError):
                async with asyncio.timeout(_NODE_SECONDS):
                    if self._routes is None:
                        await self._cluster.initialize()
                    else:
                        await self._cluster.nodes_manager.initialize()
                    return
            if first in nodes:
                nodes[first] = nodes.pop(first)  # who hangs is asked last
        raise exceptions.TimeoutError(f"no node of the cluster said in {_NODE_SECONDS:g} s which slots it has")

    def _exchange(self, name: str) -> Exchange:
        if name not in self._exchanges:
            host, _, port = name.rpartition(":")
            manager = self._cluster.nodes_manager
            node = manager.get_node(node_name=name)
            if node is None:
                node = ClusterNode(host, int(port), **self._cluster.connection_kwargs)
                manager.nodes_cache[name] = node  # so that it is closed with the others
            self._exchanges[name] = node, Exchange.with_node(node)
        return self._exchanges[name][1]

    async def _leave_removed(self) -> None:
        """Let go of nodes that the cluster does not name any more."""
        named = self._cluster.nodes_manager.nodes_cache
        for name, (node, exchange) in list(self._exchanges.items()):
            if named.get(name) is not node:
                del self._exchanges[name]
                await exchange.leave()


def _is_gone(answer: Any) -> bool:
    return isinstance(answer, exceptions.AskError) and not isinstance(answer, exceptions.MovedError)


def _unless_gone(copy: Any) -> Any:
    """Return what a copy says: nothing, where its own slot is on its way, until it has arrived."""
    return [] if _is_gone(copy) else copy


def _answers(found: list[Any], parts: Sequence[_Part]) -> Answers:
    before, after = (
        [_epochs(raw, part.slots) for raw, part in zip(copies, parts, strict=True)]
        for copies in ([part.before for part in parts], [part.after for part in parts])
    )
    return Answers(found, before, after)


def _epochs(raw: Any, slots: str | None) -> Epochs:
    """Return what a copy says, without the store's name where it is of other slots than its primary has."""
    fields = hash_of(raw)
    said = parse(fields)
    return said if slots is not None and fields.get(SLOTS) == slots.encode() else Epochs(None, said.views)


async def _together(asked: Iterable[Any]) -> list[list[Any]]:
    """Return what all of them bring; the first failure once all have ended, so that no answer is left on its way."""
    first, *others = asked
    if not others:
        return [await first]
    parts: list[list[Any]] = []
    for part in await asyncio.gather(first, *others, return_exceptions=True):
        if isinstance(part, BaseException):
            raise part
        parts.append(part)
    return parts

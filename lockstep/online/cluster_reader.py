"""The reader's round trip to a Redis Cluster: one message to each primary concerned, all at once.

Each message is bracketed by that primary's own copy of the epoch hash. A primary that hands slots to another says so: then the
cluster is asked who has which, and all is read anew; of a slot that is on its way, the rows that have gone are fetched from where
they are.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from redis import exceptions
from redis.asyncio.cluster import ClusterNode, RedisCluster

from lockstep.online.cluster import Layout, is_moving, moving
from lockstep.online.copies import SLOTS, epoch_key
from lockstep.online.exchange import Exchange, hash_of, packed, read_hash

_TRIES = 4
# How often a copy that is missing, or is of other slots, makes us ask the cluster who has which; it stays so until the next run.
_LOOK_AGAIN_SECONDS = 1.0
_ASKING = b"*1\r\n" + packed(b"ASKING")


@dataclass(frozen=True)
class Answers:
    """What one round trip brought.

    Attributes:
        found: the answer to each command, refusals among them.
        before: the copy of the epoch hash before them, as stored, of each primary that was asked.
        after: the same after them.
    """

    found: list[Any]
    before: list[Any]
    after: list[Any]


class ClusterReader:
    """Asks the primaries of a cluster.

    Args:
        cluster: an asyncio client; closed by its owner.
        project: whose epoch hash.
    """

    def __init__(self, cluster: RedisCluster, project: str) -> None:
        self._cluster = cluster
        self._project = project
        self._layout: Layout | None = None
        self._looked = 0.0
        self._copies: list[bytes] = []
        self._exchanges: dict[str, tuple[ClusterNode, Exchange]] = {}

    async def ask(self, commands: Sequence[tuple[bytes, bytes]]) -> Answers:
        """Send commands, each given with the key that it is about, and return what they answer.

        Raises:
            Transient: slots are moved faster than they can be followed.
            redis.RedisError: a primary does not answer.
        """
        failure: Exception = moving("again and again")
        for _ in range(_TRIES):
            layout = self._layout or await self._look()
            try:
                answers = await self._ask(layout, commands)
            except (exceptions.ConnectionError, exceptions.TimeoutError) as unanswered:
                # Perhaps a replica was promoted: then it is asked, but nobody is asked twice.
                if layout == await self._look():
                    raise
                failure = unanswered
                continue
            told = list(chain(answers.found, answers.before, answers.after))
            if any(map(is_moving, told)):
                await self._look()
                continue
            # A primary that was cut off from the others says that the cluster is down: they may have another one by now.
            is_down = any(isinstance(answer, exceptions.ClusterDownError) for answer in told)
            if (not is_down and self._vouched(layout, answers)) or layout == await self._look():
                return answers
        raise failure

    async def _ask(self, layout: Layout, commands: Sequence[tuple[bytes, bytes]]) -> Answers:
        shares: dict[int, list[int]] = {}
        for number, (key, _) in enumerate(commands):
            shares.setdefault(layout.owner(key), []).append(number)
        if not shares:
            shares[0] = []
        texts = [command for _, command in commands]
        parts = await _together(
            self._exchange(layout.shards[owner].node).ask(
                b"".join((self._copies[owner], *[texts[number] for number in share], self._copies[owner])),
                len(share) + 2,
            )
            for owner, share in shares.items()
        )
        answers = Answers([None] * len(commands), [part[0] for part in parts], [part[-1] for part in parts])
        for part, share in zip(parts, shares.values(), strict=True):
            for number, answer in zip(share, part[1:-1], strict=True):
                answers.found[number] = answer
        await self._follow(layout, texts, answers)
        # A copy whose own slot is on its way: nothing is known until it has arrived.
        return Answers(answers.found, _without_gone(answers.before), _without_gone(answers.after))

    async def _follow(self, layout: Layout, texts: Sequence[bytes], answers: Answers) -> None:
        """Fetch rows of slots that are on their way from where they have gone to."""
        gone: dict[tuple[str, int], list[int]] = {}
        for number, answer in enumerate(answers.found):
            if _is_gone(answer):
                gone.setdefault((answer.host, answer.port), []).append(number)
        for (host, port), share in gone.items():
            name = f"{host}:{port}"
            copy = next((c for s, c in zip(layout.shards, self._copies, strict=True) if s.node == name), _ASKING)
            asked = b"".join(_ASKING + texts[number] for number in share)
            part = await self._exchange(name).ask(b"".join((copy, asked, copy)), 2 * len(share) + 2)
            # A primary that has no slot yet has no copy either: nothing is known of its rows.
            answers.before.append([] if copy == _ASKING else part[0])
            answers.after.append([] if copy == _ASKING else part[-1])
            for number, answer in zip(share, part[2:-1:2], strict=True):
                answers.found[number] = answer

    def _vouched(self, layout: Layout, answers: Answers) -> bool:
        """Tell whether the copies are those of this table of slots, as far as it is time to look again."""
        known = {shard.slots.encode() for shard in layout.shards}
        return time.monotonic() - self._looked < _LOOK_AGAIN_SECONDS or all(
            hash_of(raw).get(SLOTS) in known for raw in answers.before
        )

    async def _look(self) -> Layout:
        """Ask the cluster which primary has which slot."""
        if self._layout is None:
            await self._cluster.initialize()
        else:
            await self._cluster.nodes_manager.initialize()
        self._looked = time.monotonic()
        layout = Layout.of(self._cluster.nodes_manager.slots_cache)
        if layout != self._layout:
            await self._leave_removed()
            self._copies = [read_hash(epoch_key(self._project, shard.tag)) for shard in layout.shards]
            self._layout = layout
        return layout

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
                await exchange.close()


def _is_gone(answer: Any) -> bool:
    return isinstance(answer, exceptions.AskError) and not isinstance(answer, exceptions.MovedError)


def _without_gone(copies: list[Any]) -> list[Any]:
    return [[] if _is_gone(copy) else copy for copy in copies]


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

"""Where a key is: the slots of a Redis Cluster, which primary each belongs to, and what that primary's own keys are called.

A cluster divides all keys into 16 384 slots (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/); a key's
slot follows from its name, or from what is in braces in it, its *tag*. Without a cluster one primary has every key and no slots.
"""

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count, groupby
from typing import Any, Protocol, cast

import redis
from redis import exceptions
from redis.cluster import PRIMARY, ClusterNode, RedisCluster
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from lockstep.errors import Transient
from lockstep.online.store import Store, answering, without_refusal

SCAN_KEYS = 1_000
"""A server answers nobody else while it looks at so many keys: half a millisecond."""

_MOVING = (exceptions.AskError, exceptions.TryAgainError)  # MOVED is an ASK, to redis-py
_HOPS = 8
_FEW = 500


class _Node(Protocol):
    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Shard:
    """One primary of a cluster.

    Attributes:
        node: its address, as redis-py names it.
        tag: with this in a key's name, the key is in one of its slots.
        slots: a digest of which slots it has.
    """

    node: str
    tag: str
    slots: str


@dataclass(frozen=True)
class Layout:
    """Which primary has which slot.

    Attributes:
        shards: the primaries that have slots, in the order of the first of them: a replica that is promoted takes its place.
        owners: for each slot the number of its shard.
    """

    shards: tuple[Shard, ...]
    owners: Sequence[int]

    def owner(self, key: bytes) -> int:
        """Return the number of the shard that has a key."""
        return self.owners[key_slot(key)]

    @classmethod
    def of(cls, slots: Mapping[int, Sequence[_Node]]) -> "Layout":
        """Read redis-py's table of slots, in which a slot's primary comes first."""
        # The slots of a range share one list, which is compared by identity first: a reader has no time to compare 16 384 names.
        nodes = groupby(map(slots.__getitem__, sorted(slots)))
        runs = [(first[0].name, len(list(same))) for first, same in nodes]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in runs))}
        owners: list[int] = []
        ranges: dict[str, list[str]] = {name: [] for name in numbers}
        for name, same_owner in groupby(runs, key=lambda run: run[0]):
            start = len(owners)
            owners += [numbers[name]] * sum(length for _, length in same_owner)
            ranges[name].append(f"{start}-{len(owners) - 1}")
        tags = _tags(owners, len(numbers))
        digests = (hashlib.sha256(",".join(of_name).encode()).hexdigest()[:16] for of_name in ranges.values())
        return cls(tuple(map(Shard, numbers, tags, digests)), owners)


def _tags(owners: Sequence[int], shards: int) -> list[str]:
    """Return for each shard the least number that, as a tag, names one of its slots."""
    found: dict[int, int] = {}
    for number in range(_FEW):
        found.setdefault(owners[key_slot(b"%d" % number)], number)
        if len(found) == shards:
            break
    else:  # a primary has just got its first slots
        for slot, number in _least_numbers().items():
            found[owners[slot]] = min(number, found.get(owners[slot], number))
    return [f"{{{found[shard]}}}" for shard in range(shards)]


@cache
def _least_numbers() -> dict[int, int]:
    """Return for each slot the least number that names it."""
    found: dict[int, int] = {}
    numbers = count()
    while len(found) < REDIS_CLUSTER_HASH_SLOTS:
        number = next(numbers)
        found.setdefault(key_slot(b"%d" % number), number)
    return found


@dataclass(frozen=True)
class Primary:
    """A server that writes go to.

    Attributes:
        client: of this server alone.
        tag: with this in a key's name the key is here; "" without a cluster.
        slots: a digest of which slots it has; "" without a cluster.
    """

    client: "redis.Redis"
    tag: str = ""
    slots: str = ""


def primaries(store: Store) -> list[Primary]:
    """Return the servers that writes go to now, always in the same order; a cluster is asked.

    Raises:
        Transient: nobody answers, or slots are served by nobody.
    """
    if not isinstance(store, RedisCluster):
        return [Primary(store)]
    layout = refreshed(store)
    return [Primary(client_of(store, shard.node), shard.tag, shard.slots) for shard in layout.shards]


def refreshed(cluster: RedisCluster) -> Layout:
    """Ask a cluster which primary has which slot; connections stay open.

    Raises:
        Transient: nobody answers, or slots are served by nobody.
    """
    with answering():
        cluster.nodes_manager.initialize(disconnect_startup_nodes_pools=False)
    return Layout.of(cluster.nodes_manager.slots_cache)


def client_of(cluster: RedisCluster, node: str) -> "redis.Redis":
    """Return a client of one primary alone."""
    found = cluster.get_node(node_name=node)
    if found is None:  # the cluster was asked meanwhile, and named other primaries
        raise moving(node)
    return cluster.get_redis_connection(found)


def scan(store: Store, count: int, **narrowed: Any) -> Iterator[list[bytes]]:
    """Yield every key that is there all the while, some at a time; the primaries of a cluster one after the other.

    A key of a slot that is on its way before, during and after the scan may be missed.

    Args:
        store: the online store.
        count: how many keys a server looks at in one go, about.
        narrowed: to which keys, as redis-py's `scan` takes it.

    Raises:
        Transient: a server does not answer; or slots were moved meanwhile, perhaps to a primary that had been looked through:
            then it is raised in the end.
    """
    found = primaries(store)
    for primary in found:
        cursor = None
        while cursor != 0:
            with answering():
                answer = primary.client.scan(cursor or 0, count=count, **narrowed)
            cursor, keys = cast("tuple[int, list[bytes]]", answer)
            yield keys
    if [(p.tag, p.slots) for p in primaries(store)] != [(p.tag, p.slots) for p in found]:
        raise moving("it was looked through, and keys may have been missed")


def moving(text: object) -> Transient:
    """Return the state of a cluster that moves slots under our hands."""
    return Transient(
        f"a slot of the online store is being moved: {text}", hint="run it again, best when the resharding has ended"
    )


def is_moving(answer: object) -> bool:
    """Tell whether an answer says that the key is elsewhere, or on its way there."""
    return isinstance(answer, _MOVING)


@contextmanager
def in_place() -> Generator[None]:
    """Turn what a primary of a cluster says about keys that are not its own into a state to try again in.

    Raises:
        Transient: a slot was moved since the cluster was asked.
    """
    try:
        yield
    except _MOVING as moved:
        raise moving(moved) from moved


def ask_each(store: Store, commands: Iterable[Sequence[Any]]) -> list[Any]:
    """Send commands at once, each to where its key is, and return what they answer; the primaries work side by side.

    Raises:
        Transient: the store does not answer.
        Terminal: it refuses one of them; the message does not hold the command, which holds somebody's key.
    """
    if isinstance(store, RedisCluster):
        return settled(_ask_primaries(store, list(commands)))
    return without_refusal(_asked(store, commands))


def _asked(server: "redis.Redis", commands: Iterable[Sequence[Any]]) -> list[Any]:
    pipeline: Any = server.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    with answering():
        return pipeline.execute(raise_on_error=False)


def _ask_primaries(cluster: RedisCluster, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Ask each primary at once for its share.

    redis-py's own pipeline takes twice as long, and an `ASK` that names a primary without a slot it does not survive.
    """
    layout = Layout.of(cluster.nodes_manager.slots_cache)
    shares: dict[int, list[int]] = {}
    for number, command in enumerate(commands):
        shares.setdefault(layout.owner(_key_of(command)), []).append(number)
    answers: list[Any] = [None] * len(commands)
    with ThreadPoolExecutor(max(1, len(shares))) as others:
        asked = {
            others.submit(
                _asked, client_of(cluster, layout.shards[owner].node), [commands[number] for number in share]
            ): share
            for owner, share in shares.items()
        }
        for answered, share in asked.items():
            for number, answer in zip(share, answered.result(), strict=True):
                answers[number] = answer
    for number, answer in enumerate(answers):
        if is_moving(answer):
            answers[number] = followed(cluster, commands[number], answer)
    return answers


def followed(cluster: RedisCluster, command: Sequence[Any], answer: Any) -> Any:
    """Send a command of one key to where the key is now, as its former primary answered; return what it answers there."""
    for _ in range(_HOPS):
        if isinstance(answer, exceptions.MovedError):
            cluster.nodes_manager.move_slot(answer)
            answer = _asked(_client_at(cluster, answer.host, answer.port), [command])[0]
        elif isinstance(answer, exceptions.AskError):
            answer = _asked(_client_at(cluster, answer.host, answer.port), [("ASKING",), command])[1]
        elif isinstance(answer, exceptions.TryAgainError):
            # Of its call's keys some had gone: alone it has gone or has not, as the slot's owner knows.
            node = cluster.nodes_manager.get_node_from_slot(key_slot(_key_of(command)))
            answer = _asked(cluster.get_redis_connection(node), [command])[0]
        else:
            break
    return answer


def _key_of(command: Sequence[Any]) -> Any:
    return command[3] if command[0] == "EVAL" else command[1]


def _client_at(cluster: RedisCluster, host: str, port: int) -> "redis.Redis":
    manager = cluster.nodes_manager
    node = manager.get_node(host, port)
    if node is None:  # a primary that is to get its first slot is in no table of slots
        node = ClusterNode(host, port, PRIMARY)
        manager.nodes_cache[node.name] = node
    manager.create_redis_connections([node])
    return cluster.get_redis_connection(node)


def settled(answers: list[Any]) -> list[Any]:
    """Return a cluster's answers of which none is a refusal.

    Raises:
        Transient: a slot is being moved faster than commands can follow.
        LockstepError: what the first refusal means, see `store.meaning`.
    """
    if moved := next(filter(is_moving, answers), None):
        raise moving(moved) from moved
    return without_refusal(answers)

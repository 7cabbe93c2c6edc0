"""The copies of the epoch hash, one on each primary, and the atomic steps that write one.

A server tells of its own rows alone what it lost. So each primary of a Redis Cluster has a copy, under a key in one of its own
slots, that also says which slots it had when the copy was named: rows of a slot that came from elsewhere are not vouched for.
A store without a cluster has one copy and says nothing of slots.
"""

import secrets
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from lockstep.errors import Transient
from lockstep.online.cluster import Primary, in_place, primaries
from lockstep.online.place import Place
from lockstep.online.store import Store, answering

INCARNATION = b"incarnation"
SLOTS = b"slots"
_SCAN_KEYS = 10_000

# What a store without a name says of views was said after it was flushed, by a commit that did not know.
_NAME = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then return known end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ARGV[2]
"""
# ARGV: the name that was seen, the new one, which slots there are. Nothing is known of any view then.
_NAME_ANEW = """
if (redis.call('HGET', KEYS[1], 'incarnation') or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'incarnation', ARGV[2], 'slots', ARGV[3])
return 1
"""
# Snapshot ids need all 64 bits, which Redis's own JSON (doubles) does not have: the comparison is of the stored bytes. ARGV[4] to
# [6] are a place, if any: the store's name, its server's run and line of replication. -1: this is another. Slots are not
# compared: a copy that says which there were vouches for no others, whenever they came.
_REPLACE = """
if ARGV[4] ~= '' and redis.call('HGET', KEYS[1], 'incarnation') ~= ARGV[4] then return -1 end
if ARGV[5] ~= '' and not string.find(redis.call('INFO', 'server'), 'run_id:' .. ARGV[5], 1, true) then return -1 end
if ARGV[6] ~= '' and not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. ARGV[6], 1, true) then
  return -1
end
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


class Elsewhere(Exception):
    """A copy is not at the place that was meant: its store was flushed, restarted or failed over."""


def epoch_key(project: str, tag: str = "") -> str:
    """Return the Redis key of a project's epoch hash, or of its copy on the primary that a tag names."""
    return f"lockstep:epoch:{project}{tag}"


@dataclass(frozen=True)
class Copy:
    """One copy, on its primary.

    Attributes:
        primary: where it is.
        key: its key.
    """

    primary: Primary
    key: str

    def fields(self) -> dict[bytes, bytes]:
        """Return all of it."""
        with self._asking() as client:
            return cast("dict[bytes, bytes]", client.hgetall(self.key))

    def field(self, name: str) -> bytes | None:
        """Return one field; None if it is not there."""
        with self._asking() as client:
            return cast("bytes | None", client.hget(self.key, name))

    def named(self) -> str:
        """Return its name, which it gets now if it has none."""
        with self._asking() as client:
            return cast("bytes", client.eval(_NAME, 1, self.key, "incarnation", secrets.token_hex(16))).decode()

    def name_anew(self, seen: Mapping[bytes, bytes], name: str) -> bool:
        """Forget all and take another name; return whether it still had the one that was seen."""
        with self._asking() as client:
            arguments = cast("list[str]", [seen.get(INCARNATION, b""), name, self.primary.slots])
            return cast("int", client.eval(_NAME_ANEW, 1, self.key, *arguments)) == 1

    def replace(self, name: str, before: bytes, after: bytes, at: Place | None) -> bool:
        """Set a field that still is as it was; return whether it was.

        Raises:
            Elsewhere: this is not the place `at`, if one is given.
        """
        place = (at.incarnation, at.run, at.line) if at else ("", "", "")
        with self._asking() as client:
            # redis-py takes bytes as well as the text its annotations ask for
            done = client.eval(_REPLACE, 1, *cast("list[str]", [self.key, name, before, after, *place]))
        if done == -1:
            raise Elsewhere
        return done == 1

    def set(self, name: str, value: bytes) -> None:
        """Set a field, whatever it was."""
        with self._asking() as client:
            client.hset(self.key, name, cast("str", value))

    def forget(self, name: str) -> None:
        """Remove a field."""
        with self._asking() as client:
            client.hdel(self.key, name)

    def vouches(self, fields: Mapping[bytes, bytes]) -> bool:
        """Tell whether what it says is of the very slots that its primary has."""
        return fields.get(SLOTS, b"") == self.primary.slots.encode()

    @contextmanager
    def _asking(self) -> Generator[Any]:
        if not self.primary.tag:
            with answering():
                yield self.primary.client
        else:
            with answering(), in_place():
                yield self.primary.client


def copies_of(store: Store, project: str) -> list[Copy]:
    """Return the copies as they have to be now, whether they are there or not."""
    return [Copy(primary, epoch_key(project, primary.tag)) for primary in primaries(store)]


def name_all(copies: Sequence[Copy], project: str) -> str:
    """Return the name of all copies; where they have none in common, or slots were moved, they get a new one and know no view.

    Raises:
        Transient: another run names them at the same time.
    """
    if not copies[0].primary.tag:
        return copies[0].named()
    found = [copy.fields() for copy in copies]
    names = {fields.get(INCARNATION, b"") for fields in found}
    if len(names) == 1 and names != {b""} and all(map(Copy.vouches, copies, found)):
        return names.pop().decode()
    name = secrets.token_hex(16)
    for copy, seen in zip(copies, found, strict=True):
        if not copy.name_anew(seen, name):
            raise named_meanwhile()
    _remove_others(copies, project)
    return name


def named_meanwhile() -> Transient:
    """Return the state of a run that another one came before in giving the store a new name."""
    return Transient("another run has just found out that the online store lost writes", hint="run this one again")


def _remove_others(copies: Sequence[Copy], project: str) -> None:
    """Remove copies that slots took with them to another primary: a reader with an old table of slots would believe them."""
    ours = {copy.key.encode() for copy in copies}
    for copy in copies:
        client = copy.primary.client
        with answering(), in_place():
            found = client.scan_iter(match=f"{epoch_key(project)}{{*}}", count=_SCAN_KEYS)
            for key in [key for key in found if key not in ours]:
                client.delete(key)

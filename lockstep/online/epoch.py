"""The epoch hash: what the online store holds of each view, in one small Redis hash that is read beside the rows.

Key `lockstep:epoch:<project>`. Field `incarnation` is a random name that the store gets once, so that a flushed or replaced store
is known; field `view:<name>` is the canonical JSON of a `ViewEpoch`. Only *plan* and *commit* of a materialization write it.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
import redis

from lockstep.errors import SchemaDrift, Transient
from lockstep.online.store import Place, answering

_INCARNATION = "incarnation"
_VIEW = "view:"
# What a store without a name says of views was said after it was flushed, by a commit that did not know.
_NAME = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then return known end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ARGV[2]
"""
_TRIES = 32
# Snapshot ids need all 64 bits, which Redis's own JSON (doubles) does not have: the comparison is of the stored bytes. ARGV[4] to
# [6] are a place, if any: the store's name, its server's run and line of replication. -1: this is another.
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


@dataclass(frozen=True, slots=True)
class Mark:
    """One interval of the ledger.

    Attributes:
        interval: its number in the ledger; later intervals have greater ones.
        snapshot_id: the newest snapshot of the view's table that it covers.
        sequence: that snapshot's sequence number.
        watermark_us: that snapshot's tick, in microseconds.
    """

    interval: int
    snapshot_id: int
    sequence: int
    watermark_us: int


@dataclass(frozen=True, slots=True)
class ViewEpoch:
    """What is online of one view: all of `committed`, and some or none of `writing`."""

    committed: Mark | None = None
    writing: Mark | None = None


@dataclass(frozen=True, slots=True)
class Epochs:
    """One reading of the epoch hash; `incarnation` is None for a store that nothing was written to."""

    incarnation: str | None
    views: Mapping[str, ViewEpoch]

    def to_json(self) -> bytes:
        """Return the canonical JSON: sorted keys, no spaces."""
        views = {name: _document(epoch) for name, epoch in self.views.items()}
        return orjson.dumps({"incarnation": self.incarnation, "views": views}, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, text: bytes | str) -> "Epochs":
        """Read what `to_json` wrote.

        Raises:
            SchemaDrift: this release cannot read it.
        """
        try:
            document = orjson.loads(text)
            views = {name: _view_epoch(epoch) for name, epoch in document["views"].items()}
            return cls(document["incarnation"], views)
        except (ValueError, TypeError, KeyError, AttributeError) as invalid:
            raise SchemaDrift(f"this is no reading of the epoch hash: {text!r}") from invalid


def epoch_key(project: str) -> str:
    """Return the Redis key of a project's epoch hash."""
    return f"lockstep:epoch:{project}"


def parse(raw: Mapping[bytes, bytes]) -> Epochs:
    """Read the hash as HGETALL returns it.

    Raises:
        SchemaDrift: a view's field is not what this release writes.
    """
    fields = {field.decode(): value for field, value in raw.items()}
    incarnation = fields.get(_INCARNATION)
    views = {f.removeprefix(_VIEW): _parse_view(f, value) for f, value in fields.items() if f.startswith(_VIEW)}
    return Epochs(incarnation.decode() if incarnation else None, views)


class EpochStore:
    """Reads and writes a project's epoch hash.

    Every method raises what `lockstep.online.store.answering` does.
    """

    def __init__(self, redis: "redis.Redis", project: str) -> None:
        self._redis = redis
        self._key = epoch_key(project)

    def ensure_incarnation(self) -> str:
        """Return the store's incarnation, which it gets now if it has none; then nothing is known of any view."""
        with answering():
            return cast("bytes", self._redis.eval(_NAME, 1, self._key, _INCARNATION, secrets.token_hex(16))).decode()

    def read(self) -> Epochs:
        """Return the hash as it is."""
        with answering():
            return parse(cast("dict[bytes, bytes]", self._redis.hgetall(self._key)))

    def set_writing(self, view: str, mark: Mark, at: Place | None = None) -> None:
        """Say that chunks of an interval may be online from now on; nothing changes when it is committed already.

        Raises:
            Transient: the store is not at the place `at` any more, if one is given.
        """
        self._update(
            view, lambda epoch: epoch if _covers(epoch.committed, mark) else ViewEpoch(epoch.committed, mark), at
        )

    def set_committed(self, view: str, mark: Mark, at: Place | None = None) -> bool:
        """Say that all of an interval is online; return whether it is, or a newer one.

        It is not, and nothing is said, where the store does not know that the interval was being written: it has lost that, and
        so perhaps the rows. A commit that comes late, after that of a newer interval, changes nothing, nor does it end a newer
        interval's writing.

        Raises:
            Transient: the store is not at the place `at` any more, if one is given.
        """
        return _covers(self._update(view, lambda epoch: _committed(epoch, mark), at).committed, mark)

    def acknowledge(self, view: str, seen: ViewEpoch, mark: Mark, at: Place) -> None:
        """Say that all of an interval is online where the store still says `seen`, which is all there is to it.

        Raises:
            Transient: the store is not at the place `at` any more.
        """
        writing = None if seen.writing and seen.writing.interval == mark.interval else seen.writing
        self._update(view, lambda epoch: ViewEpoch(mark, writing) if epoch == seen else epoch, at)

    def restore(self, view: str, epoch: ViewEpoch) -> None:
        """Set a view's state, whatever it was."""
        with answering():  # redis-py takes bytes as well as the text its annotations ask for
            self._redis.hset(self._key, _field(view), cast("str", _json(epoch)))

    def forget(self, view: str) -> None:
        """Say nothing of a view any more."""
        with answering():
            self._redis.hdel(self._key, _field(view))

    def _update(self, view: str, change: Callable[[ViewEpoch], ViewEpoch], at: Place | None = None) -> ViewEpoch:
        field = _field(view)
        place = (at.incarnation, at.run, at.line) if at else ("", "", "")
        with answering():
            for _ in range(_TRIES):
                stored = cast("bytes | None", self._redis.hget(self._key, field))
                before = _parse_view(field, stored)
                after = change(before)
                if after == before:
                    return after
                arguments = (self._key, field, stored or b"", _json(after), *place)
                done = cast("int", self._redis.eval(_REPLACE, 1, *arguments))
                if done == 1:
                    return after
                if done == -1:
                    raise Transient(
                        f"the online store was flushed, restarted or failed over while {view} was brought online",
                        hint="run the view's materialization again: what was lost is written again",
                    )
        raise Transient(f"the epoch of {view} changed {_TRIES} times while it was to be set")


def _covers(committed: Mark | None, mark: Mark) -> bool:
    return committed is not None and committed.interval >= mark.interval


def _committed(epoch: ViewEpoch, mark: Mark) -> ViewEpoch:
    if not _covers(epoch.writing, mark) or (_covers(epoch.committed, mark) and epoch.committed != mark):
        return epoch
    return ViewEpoch(mark, None if _covers(mark, epoch.writing or mark) else epoch.writing)


def _field(view: str) -> str:
    return f"{_VIEW}{view}"


def _parse_view(field: str, value: bytes | None) -> ViewEpoch:
    if value is None:
        return ViewEpoch()
    try:
        return _view_epoch(orjson.loads(value))
    except (ValueError, TypeError, AttributeError, KeyError) as invalid:
        raise SchemaDrift(f"the epoch hash holds {value!r} as {field}") from invalid


def _view_epoch(document: Mapping[str, Any]) -> ViewEpoch:
    return ViewEpoch(_mark(document["committed"]), _mark(document["writing"]))


def _mark(document: Mapping[str, int] | None) -> Mark | None:
    return None if document is None else Mark(**document)


def _document(epoch: ViewEpoch) -> dict[str, dict[str, int] | None]:
    return {"committed": _mark_document(epoch.committed), "writing": _mark_document(epoch.writing)}


def _json(epoch: ViewEpoch) -> bytes:
    return orjson.dumps(_document(epoch), option=orjson.OPT_SORT_KEYS)


def _mark_document(mark: Mark | None) -> dict[str, int] | None:
    if mark is None:
        return None
    return {
        "interval": mark.interval,
        "snapshot_id": mark.snapshot_id,
        "sequence": mark.sequence,
        "watermark_us": mark.watermark_us,
    }

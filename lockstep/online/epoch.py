"""The epoch hash: what the online store holds of each view, in one small Redis hash that is read beside the rows.

Key `lockstep:epoch:<project>`. Field `incarnation` is a random name that the store gets once, so that a flushed or replaced store
is known; field `view:<name>` is the canonical JSON of a `ViewEpoch`. Only *plan* and *commit* of a materialization write it.

On Redis Cluster there is a copy per primary (`copies.py`), and what the store says is what all of them say: the oldest
`committed`, and `writing` if any of them does or is further.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lockstep.errors import SchemaDrift, Transient
from lockstep.online.copies import INCARNATION, Copy, Elsewhere, copies_of, name_all
from lockstep.online.place import Place
from lockstep.online.store import Store

_VIEW = "view:"
_TRIES = 32


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


def parse(raw: Mapping[bytes, bytes]) -> Epochs:
    """Read the hash as HGETALL returns it.

    Raises:
        SchemaDrift: a field is not what this release writes.
    """
    try:
        fields = {field.decode(): value for field, value in raw.items()}
        incarnation = fields.get(INCARNATION.decode(), b"").decode()
    except UnicodeDecodeError as invalid:
        raise SchemaDrift(f"the epoch hash holds what is no text: {invalid}") from invalid
    views = {f.removeprefix(_VIEW): _parse_view(f, value) for f, value in fields.items() if f.startswith(_VIEW)}
    return Epochs(incarnation or None, views)


def combine(copies: Sequence[Epochs]) -> Epochs:
    """Return what all copies of the epoch hash say together.

    No name, if they do not agree on one. Of a view the oldest `committed`, none if a copy does not know the view; it is being
    written if any copy says so, or has committed more than the oldest.
    """
    first = copies[0]
    if all(copy == first for copy in copies):
        return first
    names = {copy.incarnation for copy in copies}
    views = {
        view: _together([copy.views.get(view, ViewEpoch()) for copy in copies])
        for view in dict.fromkeys(view for copy in copies for view in copy.views)
    }
    return Epochs(names.pop() if len(names) == 1 else None, views)


def _together(epochs: Sequence[ViewEpoch]) -> ViewEpoch:
    oldest = min((e.committed for e in epochs), key=lambda mark: mark.interval if mark else 0)
    since = oldest.interval if oldest else 0
    later = [mark for e in epochs for mark in (e.committed, e.writing) if mark and mark.interval > since]
    return ViewEpoch(oldest, max(later, key=lambda mark: mark.interval, default=None))


class EpochStore:
    """Reads and writes a project's epoch hash, on each primary that the store has at that time.

    Every method raises what `lockstep.online.store.answering` does.
    """

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._project = project

    def ensure_incarnation(self) -> str:
        """Return the store's incarnation, which it gets now if it has none; then nothing is known of any view.

        Copies that do not agree on one have none, nor has one whose primary has got or lost slots.
        """
        return name_all(self._copies(), self._project)

    def names(self) -> set[str]:
        """Return the incarnations that copies name, one at most where nothing was lost."""
        found = (copy.fields().get(INCARNATION) for copy in self._copies())
        return {name.decode() for name in found if name}

    def read(self) -> Epochs:
        """Return the hash as it is; without a name where a copy is missing, or is of other slots than its primary has."""
        return combine([_vouched(copy, copy.fields()) for copy in self._copies()])

    def of_view(self, view: str) -> list[ViewEpoch]:
        """Return what each copy says of a view."""
        return [_parse_view(_field(view), copy.field(_field(view))) for copy in self._copies()]

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
        said = self._update(view, lambda epoch: _committed(epoch, mark), at)
        return all(_covers(epoch.committed, mark) for epoch in said)

    def acknowledge(self, view: str, seen: ViewEpoch, mark: Mark, at: Place) -> None:
        """Say that all of an interval is online where a copy still says `seen`, which is all there is to it.

        Raises:
            Transient: the store is not at the place `at` any more.
        """
        writing = None if seen.writing and seen.writing.interval == mark.interval else seen.writing
        self._update(view, lambda epoch: ViewEpoch(mark, writing) if epoch == seen else epoch, at)

    def restore(self, view: str, epoch: ViewEpoch) -> None:
        """Set a view's state, whatever it was."""
        for copy in self._copies():
            copy.set(_field(view), _json(epoch))

    def forget(self, view: str) -> None:
        """Say nothing of a view any more."""
        for copy in self._copies():
            copy.forget(_field(view))

    def _copies(self) -> list[Copy]:
        return copies_of(self._store, self._project)

    def _update(self, view: str, change: Callable[[ViewEpoch], ViewEpoch], at: Place | None = None) -> list[ViewEpoch]:
        copies = self._copies()
        places = at.each if at else [None] * len(copies)
        elsewhere = Transient(
            f"the online store was flushed, restarted or failed over while {view} was brought online",
            hint="run the view's materialization again: what was lost is written again",
        )
        if len(places) != len(copies):  # a primary came or went
            raise elsewhere
        try:
            return [_updated(copy, view, change, place) for copy, place in zip(copies, places, strict=True)]
        except Elsewhere:
            raise elsewhere from None


def _updated(copy: Copy, view: str, change: Callable[[ViewEpoch], ViewEpoch], at: Place | None) -> ViewEpoch:
    field = _field(view)
    for _ in range(_TRIES):
        stored = copy.field(field)
        before = _parse_view(field, stored)
        after = change(before)
        if after == before or copy.replace(field, stored or b"", _json(after), at):
            return after
    raise Transient(f"the epoch of {view} changed {_TRIES} times while it was to be set")


def _vouched(copy: Copy, fields: Mapping[bytes, bytes]) -> Epochs:
    found = parse(fields)
    return found if copy.vouches(fields) else Epochs(None, found.views)


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

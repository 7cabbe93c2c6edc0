"""Whether the online store still has what the ledger says was written to it.

The epoch hash is lost with the rows beside it, so a store that says less than the ledger has lost what came after. What is
written to a store that is not where it was, its *place*, may be lost too.
"""

from collections.abc import Sequence

from lockstep.clock import Clock, to_micros
from lockstep.errors import LockstepError, LostStore
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import MaterializeRow
from lockstep.online.copies import named_meanwhile
from lockstep.online.epoch import EpochStore, Mark, ViewEpoch
from lockstep.online.place import Place, place_of
from lockstep.online.store import Store


def _another(here: str, known: str | None) -> LostStore:
    return LostStore(
        f"the online store is not the one that was written to (incarnation {here}, ledger {known})",
        hint="it is another ledger's, or an old copy of this one: empty it, and run again to have all written anew",
    )


def mark_of(row: MaterializeRow) -> Mark:
    """Return an interval as the epoch hash names it."""
    return Mark(
        interval=row.id,
        snapshot_id=row.snapshot_id,
        sequence=row.sequence_to,
        watermark_us=to_micros(row.watermark),
    )


class Wholeness:
    """Compares a store with a ledger, for one view.

    Args:
        ledger: what was written.
        store: the online store.
        project: whose keys.
        view: the view's name.
    """

    def __init__(self, ledger: Ledger, store: Store, project: str, view: str) -> None:
        self._ledger = ledger
        self._store = store
        self._project = project
        self._view = view
        self.epochs = EpochStore(store, project)

    def place(self) -> Place:
        """Return where writes go now."""
        return place_of(self._store, self.epochs.read().incarnation or "")

    def is_whole(self, row: MaterializeRow) -> bool:
        """Tell whether the store cannot have lost what was written since the interval was planned.

        A server that does not tell its run is taken at the word of its epoch hash.
        """
        marks = [(epoch.writing, epoch.committed) for epoch in self.epochs.of_view(self._view)]
        says_so = all(any(mark is not None and mark.interval >= row.id for mark in copy) for copy in marks)
        return says_so and str(self.place()) == row.place

    def own_store(self, clock: Clock) -> Place:
        """Return where writes go now; a new or flushed store is given a name, which the ledger remembers.

        Raises:
            LostStore: it is another ledger's.
            Transient: another run gives it a name at the same time.
        """
        return place_of(self._store, self._own_name(clock))

    def _own_name(self, clock: Clock) -> str:
        known, epochs = self._ledger.incarnation(), self.epochs.read()
        if known is None and epochs.views:
            raise self._unless_overtaken(
                known,
                LostStore(
                    f"the online store already holds {', '.join(sorted(epochs.views))} of {self._project}, "
                    "this ledger wrote none",
                    hint="another ledger writes to this store, or this one was lost: start with an empty store",
                ),
            )
        if known is not None and known == epochs.incarnation:
            return known
        if known is not None and epochs.views and epochs.incarnation is None:
            # Some primaries lost their copy: it is the ledger's own store if any other has it still.
            self._require_own(known)
        # The name is given before the ledger knows it, so a run that ends in between leaves a name and no view.
        now, here = clock.now(), self.epochs.ensure_incarnation()
        if known is None or not epochs.views or epochs.incarnation is None:
            self._ledger.adopt_incarnation(here, now, follows=known)
        # Read anew: another run may have come first.
        if (remembered := self._ledger.incarnation()) != here:
            raise self._unless_overtaken(known, _another(here, remembered))
        return here

    def _require_own(self, known: str) -> None:
        names = self.epochs.names()
        # Copies that know no view have just got their name from another run, before the ledger learns it.
        if names and known not in names and self.epochs.read().views:
            raise self._unless_overtaken(known, _another(", ".join(sorted(names)), known))

    def _unless_overtaken(self, known: str | None, lost: LostStore) -> LockstepError:
        """Return why the store is refused; but if the ledger has learnt another name since, that another run came first."""
        return lost if self._ledger.incarnation() == known else named_meanwhile()

    def basis(
        self, committed: Sequence[MaterializeRow], place: Place, copies: Sequence[ViewEpoch]
    ) -> MaterializeRow | None:
        """Return the interval of which the store still has all; None where nothing of the kind is known.

        It is the last one, unless writes were lost. What a copy lacks is perhaps only the word for it: when a run ended between
        the ledger's commit and the epoch hash's. Its primary has the rows if the store is still at the same place; then it is
        told.

        Args:
            committed: the view's intervals, of any table that had its name, in the order of their numbers.
            place: where the store is.
            copies: what each primary's copy of the epoch hash says of the view.

        Raises:
            LostStore: a copy says more than the ledger.
        """
        if not committed:
            return None
        found = [self._basis_of(epoch, committed, place) for epoch in dict.fromkeys(copies)]
        known = [row for row in found if row is not None]
        return min(known, key=lambda row: row.id) if len(known) == len(found) else None

    def _basis_of(self, epoch: ViewEpoch, committed: Sequence[MaterializeRow], place: Place) -> MaterializeRow | None:
        last, shown = committed[-1], epoch.committed.interval if epoch.committed else 0
        if shown > last.id:
            raise LostStore(
                f"the online store shows interval {shown} of {self._view}, the ledger only committed {last.id}",
                hint="another ledger writes to this store, or this one was restored from an older copy",
            )
        if shown == last.id:
            return last
        marked = epoch.writing is not None and epoch.writing.interval == last.id
        if marked and place.is_told and str(place) == last.place:
            self.epochs.acknowledge(self._view, epoch, mark_of(last), place)
            return last
        if any(row.writes_from == 0 for row in committed if row.id > shown):  # it had a reason to write everything
            return None
        return next((row for row in committed if row.id == shown), None)

"""Compare what is online with the lake and the ledger, for one view; nothing is changed."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from lockstep.contract import View
from lockstep.errors import BadInput
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import MaterializeRow, State
from lockstep.materialize.rows import IntervalRows, Share, ViewRows
from lockstep.online.epoch import EpochStore, ViewEpoch
from lockstep.online.store import Store
from lockstep.online.withdraw import StoredTimes, not_taken_back
from lockstep.online.writer import check_store, read_back


@dataclass(frozen=True)
class Diagnosis:
    """How the online store stands to the lake, for one view.

    Attributes:
        view: which one.
        keys: how many were compared: every key that the committed intervals brought, or a share of them.
        differing: those whose stored row is neither the lake's, byte for byte, nor newer.
        problems: what is wrong, in words, with what to do about it; nothing if the store is as it should be.
        leftovers: how many keys are online with a row that the lake does not have, nor a newer one.
    """

    view: str
    keys: int
    differing: int
    problems: tuple[str, ...]
    leftovers: int = 0


@dataclass(frozen=True)
class ReadBack:
    """What a comparison of rows with the store found: how many were read, how many differ, and a key that does."""

    rows: int = 0
    differing: int = 0
    first: str = ""

    def adding(self, key: str, rows: pa.Table, wrong: Sequence[int]) -> "ReadBack":
        """Return it with another part: its rows, and the indices of those that differ."""
        first = self.first or (f"{key}={rows[key][wrong[0]].as_py()}" if wrong else "")
        return ReadBack(self.rows + rows.num_rows, self.differing + len(wrong), first)


@dataclass(frozen=True)
class Doctor:
    """Compares rows of the lake with the store.

    Attributes:
        rows: the view's rows in the lake.
        store: the online store.
        project: whose keys.
        view: which view.
    """

    rows: ViewRows
    store: Store
    project: str
    view: View

    def read_back(self, rows: IntervalRows, one_of: int) -> ReadBack:
        """Compare what an interval writes and takes away, one key of so many, byte for byte."""
        (key,) = self.view.join_keys
        share, found = Share(0, one_of, sample=True), ReadBack()
        for part in rows.newest(share):
            found = found.adding(key.name, part, read_back(self.store, self.project, self.view, part))
        for part in rows.withdrawn(share):
            found = found.adding(key.name, part, not_taken_back(self.store, self.project, self.view, part))
        return found

    def diagnose(self, ledger: Ledger, one_of: int = 1) -> Diagnosis:
        """Say what is wrong.

        Args:
            ledger: what was written.
            one_of: compare one key of so many; leftovers are looked for among all.

        Raises:
            Transient: the store does not answer.
        """
        name, problems = self.view.name, list[str]()
        try:
            check_store(self.store)
        except BadInput as evicting:
            problems.append(str(evicting))
        known = ledger.materializations(name)
        rows = [r for r in known if r.table_uuid == self.rows.table_uuid()]
        committed = [r for r in rows if r.state is State.COMMITTED]
        again = f"`lockstep materialize {name}`"
        problems += [
            f"interval {r.id} is {r.state.value} since {r.planned_at.isoformat(timespec='seconds')}: {again} finishes it"
            for r in rows
            if r.state is not State.COMMITTED
        ]
        if not committed:
            return Diagnosis(name, 0, 0, (*problems, f"nothing is online: {again}"))
        last = committed[-1]
        problems += self._lost(ledger, [r for r in known if r.state is State.COMMITTED][-1], again)
        if any(r.id > last.id for r in known if r.state is State.COMMITTED):
            problems.append(
                f"what is online is of another table that was called {name}: {again} writes all of it again"
            )
        elif not self.rows.current(last) and self.rows.readable(last):
            problems.append(f"the table was rolled back since interval {last.id}: {again} writes it as it is now")
        if not self.rows.readable(last):
            expired = (
                f"the snapshot of interval {last.id} has expired, so nothing can be compared: {again} goes on from it"
            )
            return Diagnosis(name, 0, 0, (*problems, expired))
        found = self.rows.whole(last)
        compared = self.read_back(found, one_of)
        stored = StoredTimes(self.store, self.project, self.view)
        leftovers = sum(part.num_rows for part in found.leftovers(stored)) + len(stored.unreadable)
        mended = "" if problems else f": `lockstep repair {name}`"  # else what is said above mends it
        if compared.differing:
            problems.append(
                f"{compared.differing} of {compared.rows} keys are not as in the lake, first {compared.first}{mended}"
            )
        if leftovers:
            problems.append(
                f"{leftovers} keys are online with rows that the lake does not have: `lockstep repair {name}`"
            )
        return Diagnosis(name, compared.rows, compared.differing, tuple(problems), leftovers)

    def _lost(self, ledger: Ledger, last: MaterializeRow, again: str) -> list[str]:
        """Say what the epoch hash lacks of what the ledger committed."""
        epochs, known = EpochStore(self.store, self.project).read(), ledger.incarnation()
        epoch = epochs.views.get(self.view.name, ViewEpoch())
        shown = epoch.committed.interval if epoch.committed else None
        if epochs.incarnation is None:
            of_cluster = ", as is a primary of it, or has other slots" if epochs.views else ""
            return [f"the store is empty, or was flushed{of_cluster}: {again} writes all of it again"]
        if epochs.incarnation != known:
            return [f"it is another store than the ledger's (incarnation {epochs.incarnation}, ledger {known})"]
        if shown != last.id:
            return [
                f"the store shows interval {shown or 'none'}, the ledger committed {last.id}: {again} makes them agree"
            ]
        return []

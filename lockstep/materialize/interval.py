"""Bring a view online up to a snapshot: plan an interval, write its chunks, verify, commit. No windows live here.

An interval is a range of the view table's snapshots. Late rows, corrected rows and missed ticks are all just rows of new
snapshots; a rerun finds nothing new, or finishes what an earlier run planned. The order of steps is what makes a crash at
any point harmless:

    plan     the ledger claims the interval, then the epoch hash says `writing N`
    write    chunks, each an atomic compare-and-set per key; they never touch the epoch hash
    verify   counts and a read-back sample; the ledger says `verified`
    commit   the ledger says `committed`, then the epoch hash does

The epoch hash is lost with the rows beside it: a store that was flushed, or came back from an older copy, says less than the
ledger. Then the next interval, or with nothing new a repair, writes all that came after what the store still says.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from lockstep.clock import from_micros
from lockstep.contract import stored_view
from lockstep.errors import BadInput, Transient, VerificationFailed
from lockstep.lake import Lake
from lockstep.materialize.doctor import Diagnosis, Doctor
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import MaterializeRow, Mode, Reach, Scope, State
from lockstep.materialize.rows import IntervalRows, Share, ViewRows
from lockstep.materialize.wholeness import Wholeness, mark_of
from lockstep.online.place import Place
from lockstep.online.store import Store
from lockstep.online.withdraw import StoredTimes, take_back
from lockstep.online.writer import add_digests, check_store, write_parts
from lockstep.settings import Settings
from lockstep.views.declare import StoredView

SAMPLE = 1_000
_TRIES = 3
_Part = TypeVar("_Part")


class _Overtaken(Exception):
    """Another run came between reading the ledger and writing it: what there is to do has to be looked at anew."""


@dataclass(frozen=True)
class Chunk:
    """One share of an interval's keys: those whose hash leaves `index` when divided by `of`."""

    index: int
    of: int


@dataclass(frozen=True)
class Plan:
    """What there is to do: an interval and its chunks, or neither when nothing is new."""

    interval: int | None
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class ChunkWritten:
    """What the compare-and-set did with a chunk's keys.

    Attributes:
        accepted: keys that are as the lake has them.
        rejected: keys that are newer.
        digest: of the rows that were sent (`online.writer.Written`).
        how: which rows of the interval it wrote, and where (`MaterializeRow.written_at`).
    """

    accepted: int
    rejected: int
    digest: str
    how: str


class Materializer:
    """Brings one view online.

    Args:
        settings: limits and the clock.
        lake: where the view's table is.
        ledger: where intervals are kept.
        store: the online store.
        project: whose keys.
        view: which view.
    """

    def __init__(
        self, settings: Settings, lake: Lake, ledger: Ledger, store: Store, project: str, view: StoredView
    ) -> None:
        self._settings = settings
        self._lake = lake
        self._ledger = ledger
        self._store = store
        self._project = project
        self._view = view
        self._stored = stored_view(view)
        self._rows = ViewRows(settings, lake, view)
        self._doctor = Doctor(self._rows, store, project, self._stored)
        self._whole = Wholeness(ledger, store, project, view.name)

    def plan(self, chunks: int = 1, *, everything: bool = False) -> Plan:
        """Claim what is new in the view's table, or an interval that an earlier run left unfinished.

        There are at least `chunks` chunks, and so many that none brings much more than `materialize_values` values online.

        Also a run with nothing new first brings the epoch hash to the ledger's state. Where the store has lost writes, the
        interval begins with the first of them; with `everything`, as if it had lost them all.

        Raises:
            LostStore: the online store is another ledger's, or this ledger is older than it.
            BadInput: the view was never computed, or `chunks` is not positive.
        """
        if chunks < 1:
            raise BadInput(f"an interval has at least one chunk, not {chunks}")
        check_store(self._store)
        for _ in range(_TRIES):
            try:
                row = self._plan(everything=everything)
            except _Overtaken:
                continue
            return self._divided(row, chunks) if row else Plan(None, ())
        raise Transient(f"others plan {self._view.name} at the same time, again and again", hint="try again")

    def _plan(self, *, everything: bool) -> MaterializeRow | None:
        """Return the row to write; None where nothing is new."""
        # In this order: whatever is lost, said or planned from here on is found out by whoever comes later.
        place = self._whole.own_store(self._settings.clock)
        before = _committed(self._ledger.materializations(self._view.name))
        copies = self._whole.epochs.of_view(self._view.name)
        known = self._ledger.materializations(self._view.name)
        table_uuid = self._rows.table_uuid()
        committed = _committed(known)
        if committed != before:  # the store may have been asked before it was told
            raise _Overtaken
        basis = self._whole.basis(committed, place, copies)
        if committed and basis != committed[-1]:
            logging.getLogger(__name__).warning(
                "the online store has lost writes of %s: all after snapshot sequence %d is written again",
                *(self._view.name, basis.sequence_to if basis else 0),
            )
        if everything or (basis and self._is_of_another_table(basis, known, table_uuid)):
            basis = None
        mine = [r for r in known if r.table_uuid == table_uuid]
        row = next((r for r in mine if r.state is not State.COMMITTED), None)
        if row is None or row != known[-1] or not self._rows.current(row):
            row = self._claim(table_uuid, known, basis, instead_of=row)
        if row is None:
            return None
        writes_from, after_id = row.writes_from, row.writes_after_id
        if basis is None or basis.sequence_to <= writes_from:
            writes_from, after_id = (basis.sequence_to, basis.snapshot_id) if basis else (0, None)
        scope = self._rows.scope(writes_from, after_id, row.sequence_to)
        planned = self._ledger.start_writing(
            row, str(place), writes_from=writes_from, writes_after_id=after_id, scope=scope
        )
        if planned is None:
            raise _Overtaken
        self._whole.epochs.set_writing(self._view.name, mark_of(planned), place)
        return planned

    @staticmethod
    def _is_of_another_table(basis: MaterializeRow, known: Sequence[MaterializeRow], table_uuid: str) -> bool:
        """Tell whether another table had this name when the store was written to: as a whole, or in part since."""
        since = [r for r in known if r.id >= basis.id and (r == basis or r.state is not State.COMMITTED)]
        return any(r.table_uuid != table_uuid for r in since)

    def _divided(self, row: MaterializeRow, chunks: int) -> Plan:
        of = max(chunks, -(-self._rows.of(row).values() // self._settings.materialize_values))
        return Plan(row.id, tuple(Chunk(index, of) for index in range(of)))

    def write(self, interval: int, chunk: Chunk) -> ChunkWritten:
        """Write the newest row per key of a chunk, and take back what the lake has no more; again, it changes nothing.

        Of an interval that is committed nothing is written, as by a step that is tried again, or that went on while another run
        came to the end: a later interval may have taken back what this one would bring.

        Raises:
            BadInput: the interval's last snapshot has expired.
            Transient: snapshots that it was planned with have, or the store does not answer.
        """
        row = self._ledger.materialization(interval)
        place = self._whole.place()  # before the first row: what is lost from now on was written somewhere else
        how = row.written_at(str(place))
        if row.state is State.COMMITTED:
            return ChunkWritten(0, 0, add_digests(()), how)
        found, share = self._rows.of(row), Share(chunk.index, chunk.of)
        online = self._store, self._project, self._stored
        if chunk.index == 0 and row.scope is Scope.WHOLE:
            self._take_back_leftovers(row, found)
        written = write_parts(*online, self._under_way(row, found.newest(share)))
        taken = [take_back(*online, rows) for rows in self._under_way(row, found.withdrawn(share))]
        return ChunkWritten(
            written.accepted + sum(done for done, _ in taken),
            written.rejected + sum(newer for _, newer in taken),
            written.digest,
            how,
        )

    def _take_back_leftovers(self, row: MaterializeRow, found: IntervalRows) -> None:
        online = self._store, self._project, self._stored
        stored = StoredTimes(*online)
        leftovers = self._under_way(row, found.leftovers(stored))
        count = sum(take_back(*online, rows, exactly=True)[0] for rows in leftovers)
        count += sum(part.remove_unreadable() for part in self._under_way(row, [stored]))
        if count:
            logging.getLogger(__name__).warning(
                "%d keys of %s were online with rows that the lake does not have; they were taken back",
                *(count, self._view.name),
            )

    def _under_way(self, row: MaterializeRow, parts: Iterable[_Part]) -> Iterator[_Part]:
        """Yield parts until another run has committed the interval.

        Raises:
            Transient: it was planned anew, or the view's table is another one now.
            Terminal: it was given up.
        """
        for part in parts:
            now = self._ledger.materialization(row.id)
            if now.state is State.COMMITTED:
                return
            planned = now.place is not None and now.written_at(now.place)
            if planned != row.written_at(row.place or "") or self._ledger.newest_materialization(row.view) != row.id:
                raise self._losing(row.id)
            yield part

    def verify(self, interval: int, written: Sequence[ChunkWritten]) -> None:
        """Compare what was written with the lake: every key counted, about `SAMPLE` rows read back byte for byte.

        Raises:
            VerificationFailed: keys are missing, or a value is not what was sent.
            Transient: the store was flushed, restarted or failed over since, or another run has planned the interval anew.
        """
        row = self._ledger.materialization(interval)
        if row.state is State.COMMITTED:
            return
        planned = row.written_at(row.place or "")
        if {row.written_at(str(self._whole.place())), *(w.how for w in written)} != {planned}:
            raise self._losing(interval)
        found = self._rows.of(row)
        keys = found.count()
        accepted, rejected = sum(w.accepted for w in written), sum(w.rejected for w in written)
        if accepted + rejected != keys:
            raise VerificationFailed(
                f"{self._view.name}, interval {interval}: {keys} keys in the lake, "
                f"{accepted} accepted + {rejected} rejected online",
                hint="run the view's materialization again: it finishes this very interval",
            )
        read = self._doctor.read_back(found, one_of=max(1, keys // SAMPLE))
        if read.differing and str(self._whole.place()) != row.place:
            raise self._losing(interval)
        if read.differing:
            raise VerificationFailed(
                f"{self._view.name}, interval {interval}: {read.differing} of {read.rows} rows read back differ, "
                f"first {read.first}",
                hint="another writer may be using this store; run the materialization again, and if that does not help: "
                f"`lockstep repair {self._view.name}` writes all of it anew",
            )
        if not self._ledger.verify(row, accepted, rejected, add_digests(w.digest for w in written)):
            raise self._losing(interval)

    def commit(self, interval: int) -> MaterializeRow:
        """Say that the interval is online: first in the ledger, then in the epoch hash.

        If the server was restarted, failed over or flushed since the interval was planned, it is written again first.

        Raises:
            VerificationFailed: it was not verified.
            Transient: the store loses what is written to it, again and again; or another run is writing the interval anew.
        """
        for _ in range(_TRIES):
            row = self._ledger.materialization(interval)
            if row.state is State.COMMITTED:
                break
            if row.state is State.WRITING:
                raise self._losing(interval)
            if row.state is not State.VERIFIED:
                raise VerificationFailed(f"{self._view.name}: interval {interval} is {row.state}, not verified")
            if not self._whole.is_whole(row):
                self._write_again(interval)
            elif self._ledger.commit_materialize(row, self._settings.clock.now()):
                break
        else:
            raise self._losing(interval)
        # The store is asked once more, in the very step that tells it: it may have been lost since.
        if not self._whole.epochs.set_committed(
            self._view.name, mark_of(row), Place.of(row.place) if row.place else None
        ):
            raise self._losing(interval)
        return self._ledger.materialization(interval)

    def run(self, *, everything: bool = False) -> MaterializeRow | None:
        """Plan, write, verify and commit in one go; None when nothing is new.

        With `everything` the newest row of each key is written again, whatever the store holds; one that is newer than the
        lake's stays.
        """
        plan = self.plan(everything=everything)
        if plan.interval is None:
            return None
        self._write_and_verify(plan.interval, plan.chunks)
        return self.commit(plan.interval)

    def diagnose(self, one_of: int = 1) -> Diagnosis:
        """Compare the store with the lake and the ledger, see `Doctor.diagnose`; nothing is changed."""
        return self._doctor.diagnose(self._ledger, one_of)

    def _write_and_verify(self, interval: int, chunks: Sequence[Chunk]) -> None:
        self.verify(interval, [self.write(interval, chunk) for chunk in chunks])

    def _write_again(self, interval: int) -> None:
        plan = self.plan()
        if plan.interval != interval:
            raise self._losing(interval)
        self._write_and_verify(interval, plan.chunks)

    def _losing(self, interval: int) -> Transient:
        return Transient(
            f"interval {interval} of {self._view.name} was written to a store that was lost since, or is being written anew",
            hint="run the view's materialization again, once the store is steady: what was lost is written again",
        )

    def _claim(
        self,
        table_uuid: str,
        known: Sequence[MaterializeRow],
        basis: MaterializeRow | None,
        *,
        instead_of: MaterializeRow | None,
    ) -> MaterializeRow | None:
        """Plan what is new in the table, or else what has to be written again; None where neither is so.

        Args:
            table_uuid: which table.
            known: the view's rows.
            basis: the one of which the store has all.
            instead_of: a row that was planned and cannot be finished: its snapshot has expired or was rolled back, or another
                table came in between.
        """
        mine = [r for r in _committed(known) if r.table_uuid == table_uuid]
        current, watermark = self._lake.current(self._view.table), self._watermark(mine)
        if current is None or watermark is None:
            raise BadInput(f"{self._view.name} was never computed", hint=f"run backfill for {self._view.name} first")
        reached = max((row.sequence_to for row in mine), default=0)
        mode, after = Mode.INTERVAL, reached
        if current.sequence <= reached:
            if basis is not None and basis == known[-1] and current.id == basis.snapshot_id:
                return None
            mode, after = Mode.REPAIR, basis.sequence_to if basis and basis.sequence_to < current.sequence else 0
            if current.id != mine[-1].snapshot_id:
                logging.getLogger(__name__).warning(
                    "%s was rolled back or forward to snapshot %d: all of it is written again",
                    self._view.table,
                    current.id,
                )
                after = 0
        row = self._ledger.plan_materialize(
            self._view.name,
            mode,
            after,
            Reach(table_uuid, current.sequence, current.id, watermark),
            self._settings.clock.now(),
            newest=known[-1].id if known else 0,
            instead_of=instead_of,
        )
        if row is None:
            raise _Overtaken
        return row

    def _watermark(self, known: Sequence[MaterializeRow]) -> datetime | None:
        """Return the last tick that a snapshot says or, where these have expired, the ledger; None if there never was one."""
        ticks = [from_micros(s.tick) for s in self._lake.lineage(self._view.table) if s.tick is not None]
        if not ticks:
            ticks = [row.watermark for row in known]
            ticks += [row.tick_to for row in self._ledger.computes(self._view.name) if row.state is State.COMMITTED]
        return max(ticks, default=None)


def _committed(rows: Sequence[MaterializeRow]) -> list[MaterializeRow]:
    return [row for row in rows if row.state is State.COMMITTED]

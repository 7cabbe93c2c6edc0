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
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa
import redis

from lockstep.clock import from_micros, to_micros
from lockstep.contract import stored_view
from lockstep.errors import BadInput, LostStore, NotYetSupported, Transient, VerificationFailed
from lockstep.lake import Lake
from lockstep.lake.engine import connect, newest_by_key, quote, read_parquet
from lockstep.materialize.ledger import Ledger, MaterializeRow, State
from lockstep.online.epoch import EpochStore, Mark, ViewEpoch
from lockstep.online.store import Place, place_of
from lockstep.online.writer import add_digests, check_store, read_back, write_rows
from lockstep.settings import Settings
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP, StoredView

SAMPLE = 1_000
_TRIES = 3
_PART_ROWS = 50_000


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
    """What the compare-and-set did with a chunk's keys, and at which place of the store (`online.store.Place`)."""

    accepted: int
    rejected: int
    digest: str
    place: str


@dataclass(frozen=True)
class Diagnosis:
    """How the online store stands to the lake, for one view.

    Attributes:
        view: which one.
        keys: how many were compared: every key that the committed intervals brought, or a share of them.
        differing: those whose stored row is neither the lake's, byte for byte, nor newer.
        problems: what is wrong, in words, with what to do about it; nothing if the store is as it should be.
    """

    view: str
    keys: int
    differing: int
    problems: tuple[str, ...]


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
        self, settings: Settings, lake: Lake, ledger: Ledger, store: "redis.Redis", project: str, view: StoredView
    ) -> None:
        self._settings = settings
        self._lake = lake
        self._ledger = ledger
        self._store = store
        self._project = project
        self._view = view
        self._stored = stored_view(view)
        self._epochs = EpochStore(store, project)

    def plan(self, chunks: int = 1, *, everything: bool = False) -> Plan:
        """Claim what is new in the view's table, or an interval that an earlier run left unfinished.

        There are at least `chunks` chunks, and so many that none is of much more than `materialize_rows` rows of the lake.

        Also a run with nothing new first brings the epoch hash to the ledger's state. Where the store has lost writes, the
        interval begins with the first of them; with `everything`, as if it had lost them all.

        Raises:
            LostStore: the online store is another ledger's, or this ledger is older than it.
            BadInput: the view was never computed, or `chunks` is not positive.
            NotYetSupported: a new snapshot took rows away; nothing was claimed.
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
        place = place_of(self._store, self._own_store())
        epoch = self._epochs.read().views.get(self._view.name, ViewEpoch())
        rows = self._ledger.materializations(self._view.name)
        committed = [r for r in rows if r.state is State.COMMITTED]
        last = committed[-1] if committed else None
        lost_after = self._lost_after(last, place, epoch) if last else None
        if lost_after is not None:
            logging.getLogger(__name__).warning(
                "the online store has lost writes of %s: all after snapshot sequence %d is written again",
                *(self._view.name, lost_after),
            )
        if last and everything:
            lost_after = 0
        furthest = max(committed, key=lambda r: r.sequence_to, default=None)
        reached = furthest.sequence_to if furthest else 0
        # An interval that was overtaken by others heals nothing.
        row = next((r for r in rows if r.state is not State.COMMITTED and r.sequence_to >= reached), None)
        try:
            row = row or self._claim(reached, committed)
        except NotYetSupported:
            if lost_after is None:
                raise  # else what was online already comes first; the next run says it
        if row is None and furthest and lost_after is not None:
            now = self._settings.clock.now()
            row = self._ledger.plan_repair(furthest, lost_after, now, newest=rows[-1].id)
            if row is None:
                raise _Overtaken
        if row is None:
            return None
        writes_from = row.writes_from if lost_after is None else min(row.writes_from, lost_after)
        if not self._ledger.start_writing(row, str(place), writes_from):
            raise _Overtaken
        self._epochs.set_writing(self._view.name, _mark(row), place)
        return self._ledger.materialization(row.id)

    def _divided(self, row: MaterializeRow, chunks: int) -> Plan:
        files = self._lake.files_added(self._view.table, row.writes_from, row.sequence_to)
        of = max(chunks, -(-sum(file.rows for file in files) // self._settings.materialize_rows))
        return Plan(row.id, tuple(Chunk(index, of) for index in range(of)))

    def write(self, interval: int, chunk: Chunk) -> ChunkWritten:
        """Write the newest row per key of a chunk; writing it again changes nothing."""
        row = self._ledger.materialization(interval)
        place = self._place()  # before the first row: what is lost from now on was written somewhere else
        share = f"hash({quote(self._view.entity.join_key)}) % {chunk.of} = {chunk.index}"
        written = [
            write_rows(self._store, self._project, self._stored, rows) for rows in self._newest_rows(row, share)
        ]
        return ChunkWritten(
            sum(w.accepted for w in written),
            sum(w.rejected for w in written),
            add_digests(w.digest for w in written),
            str(place),
        )

    def verify(self, interval: int, written: Sequence[ChunkWritten]) -> None:
        """Compare what was written with the lake: every key counted, about `SAMPLE` rows read back byte for byte.

        Raises:
            VerificationFailed: keys are missing, or a value is not what was sent.
            Transient: the store was flushed, restarted or failed over since, or another run has planned the interval anew.
        """
        row = self._ledger.materialization(interval)
        if row.state is State.COMMITTED:
            return
        if {str(self._place()), *(w.place for w in written)} != {row.place}:
            raise self._losing(interval)
        keys = self._count_keys(row)
        accepted, rejected = sum(w.accepted for w in written), sum(w.rejected for w in written)
        if accepted + rejected != keys:
            raise VerificationFailed(
                f"{self._view.name}, interval {interval}: {keys} keys in the lake, "
                f"{accepted} accepted + {rejected} rejected online",
                hint="run the view's materialization again: it finishes this very interval",
            )
        read, differing, first = self._read_back(row, one_of=max(1, keys // SAMPLE))
        if differing:
            raise VerificationFailed(
                f"{self._view.name}, interval {interval}: {differing} of {read} rows read back differ, first {first}",
                hint="another writer may be using this store; run the materialization again",
            )
        if not self._ledger.verify(row, accepted, rejected, add_digests(w.digest for w in written)):
            raise self._losing(interval)

    def _read_back(self, row: MaterializeRow, one_of: int) -> tuple[int, int, str]:
        """Compare one key of so many with the store; return how many were read, how many differ, and one that does."""
        key = self._view.entity.join_key
        read = differing = 0
        first = ""
        # Other bits of the hash than those a chunk is chosen by.
        for rows in self._newest_rows(row, f"(hash({quote(key)}) >> 40) % {one_of} = 0"):
            wrong = read_back(self._store, self._project, self._stored, rows)
            if wrong and not first:
                first = f"{key}={rows[key][wrong[0]].as_py()}"
            read, differing = read + rows.num_rows, differing + len(wrong)
        return read, differing, first

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
            if not self._is_whole(row):
                self._write_again(interval)
            elif self._ledger.commit_materialize(row, self._settings.clock.now()):
                break
        else:
            raise self._losing(interval)
        # The store is asked once more, in the very step that tells it: it may have been lost since.
        if not self._epochs.set_committed(self._view.name, _mark(row), Place.of(row.place) if row.place else None):
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
        """Compare the store with the lake and the ledger; nothing is changed.

        Args:
            one_of: compare one key of so many.

        Raises:
            Transient: the store does not answer.
        """
        problems: list[str] = []
        try:
            check_store(self._store)
        except BadInput as evicting:
            problems.append(str(evicting))
        rows = self._ledger.materializations(self._view.name)
        committed = [r for r in rows if r.state is State.COMMITTED]
        again = f"`lockstep materialize {self._view.name}`"
        problems += [
            f"interval {r.id} is {r.state.value} since {r.planned_at.isoformat(timespec='seconds')}: {again} finishes it"
            for r in rows
            if r.state is not State.COMMITTED
        ]
        if not committed:
            return Diagnosis(self._view.name, 0, 0, (*problems, f"nothing is online: {again}"))
        epochs, known = self._epochs.read(), self._ledger.incarnation()
        epoch = epochs.views.get(self._view.name, ViewEpoch())
        shown = epoch.committed.interval if epoch.committed else None
        if epochs.incarnation is None:
            problems.append(f"the store is empty, or was flushed: {again} writes all of it again")
        elif epochs.incarnation != known:
            problems.append(
                f"it is another store than the ledger's (incarnation {epochs.incarnation}, ledger {known})"
            )
        elif shown != committed[-1].id:
            problems.append(
                f"the store shows interval {shown or 'none'}, the ledger committed {committed[-1].id}: {again} makes them agree"
            )
        furthest = max(committed, key=lambda r: r.sequence_to)
        read, differing, first = self._read_back(replace(furthest, writes_from=0), one_of)
        if differing:
            mended = "" if problems else f": `lockstep repair {self._view.name}`"  # else what is said above mends it
            problems.append(f"{differing} of {read} keys are not as in the lake, first {first}{mended}")
        return Diagnosis(self._view.name, read, differing, tuple(problems))

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

    def _place(self) -> Place:
        return place_of(self._store, self._epochs.read().incarnation or "")

    def _is_whole(self, row: MaterializeRow) -> bool:
        """Tell whether the store cannot have lost what was written since the interval was planned.

        A server that does not tell its run is taken at the word of its epoch hash.
        """
        epochs = self._epochs.read()
        epoch = epochs.views.get(self._view.name, ViewEpoch())
        says_so = any(mark is not None and mark.interval >= row.id for mark in (epoch.writing, epoch.committed))
        return says_so and str(place_of(self._store, epochs.incarnation or "")) == row.place

    def _own_store(self) -> str:
        """Return the store's name; a new or flushed one is given one, which the ledger remembers.

        Raises:
            LostStore: it is another ledger's.
        """
        known, epochs = self._ledger.incarnation(), self._epochs.read()
        if known is None and epochs.views:
            raise LostStore(
                f"the online store already holds {', '.join(sorted(epochs.views))} of {self._project}, this ledger wrote none",
                hint="another ledger writes to this store, or this one was lost: start with an empty store",
            )
        if known is not None and known == epochs.incarnation:
            return known
        # The name is given before the ledger knows it, so a run that ends in between leaves a name and no view.
        now, here = self._settings.clock.now(), self._epochs.ensure_incarnation()
        if known is None or not epochs.views or epochs.incarnation is None:
            self._ledger.adopt_incarnation(here, now, follows=known)
        # Read anew: another run may have come first.
        if (known := self._ledger.incarnation()) != here:
            raise LostStore(
                f"the online store is not the one that was written to (incarnation {here}, ledger {known})",
                hint="it is another ledger's, or an old copy of this one: empty it, and run again to have all written anew",
            )
        return here

    def _lost_after(self, last: MaterializeRow, place: Place, epoch: ViewEpoch) -> int | None:
        """Return the snapshot sequence up to which the store has what the ledger committed; None where it has all of it.

        What it lacks is perhaps only the word for it: when a run ended between the ledger's commit and the epoch hash's. It
        has the rows if it is still the same place; then it is told.
        """
        shown, reached = (epoch.committed.interval, epoch.committed.sequence) if epoch.committed else (0, 0)
        if shown > last.id:
            raise LostStore(
                f"the online store shows interval {shown} of {self._view.name}, the ledger only committed {last.id}",
                hint="another ledger writes to this store, or this one was restored from an older copy",
            )
        if shown == last.id:
            return None
        marked = epoch.writing is not None and epoch.writing.interval == last.id
        if (marked and place.run and str(place) == last.place) or reached >= last.sequence_to:
            self._epochs.acknowledge(self._view.name, epoch, _mark(last), place)
            return None
        return reached

    def _claim(self, after: int, committed: Sequence[MaterializeRow]) -> MaterializeRow | None:
        """Plan the snapshots after the committed ones; None when there are none."""
        snapshots = self._lake.snapshots(self._view.table)
        # A compaction says no tick, and may have outlived the snapshots that did.
        ticks = [from_micros(s.tick) for s in snapshots if s.tick is not None] or [row.watermark for row in committed]
        if not snapshots or not ticks:
            raise BadInput(f"{self._view.name} was never computed", hint=f"run backfill for {self._view.name} first")
        current = snapshots[-1]
        if current.sequence == after:
            return None
        self._lake.refuse_deletions(self._view.table, after, current.sequence)
        return self._ledger.plan_materialize(
            self._view.name,
            after,
            current.sequence,
            snapshot_id=current.id,
            watermark=max(ticks),
            planned_at=self._settings.clock.now(),
        )

    def _newest_rows(self, row: MaterializeRow, share: str) -> Iterator[pa.Table]:
        """Yield, in parts, the newest row per key among the files that the interval writes; `share` says of which keys."""
        schema, key = self._view.schema, self._view.entity.join_key
        others = {name: name for name in schema.names if name != key}
        with self._files(row) as (connection, files):
            if not files:
                return
            order = (EVENT_TIMESTAMP, CREATED_TIMESTAMP)
            found = connection.sql(newest_by_key(key, key, others, order, files, share))
            for batch in found.to_arrow_reader(_PART_ROWS):
                yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)

    def _count_keys(self, row: MaterializeRow) -> int:
        with self._files(row) as (connection, files):
            key = quote(self._view.entity.join_key)
            query = f"SELECT count(*) FROM (SELECT DISTINCT {key} FROM {files})"
            return connection.sql(query).fetchall()[0][0] if files else 0

    @contextmanager
    def _files(self, row: MaterializeRow) -> Generator[tuple[duckdb.DuckDBPyConnection, str]]:
        """Give an engine, and what reads the files that the interval writes: "" if there are none."""
        files = self._lake.files_added(self._view.table, row.writes_from, row.sequence_to)
        with connect(self._settings) as connection:
            yield connection, read_parquet(f.path for f in files) if files else ""


def _mark(row: MaterializeRow) -> Mark:
    return Mark(
        interval=row.id,
        snapshot_id=row.snapshot_id,
        sequence=row.sequence_to,
        watermark_us=to_micros(row.watermark),
    )

"""How much of the tables' history is kept, and why: what nobody can ask for any more is expired.

A snapshot is kept while any of these holds, in this order:

* a branch or tag names it: the head of the table, or a training cut (`contract.py`);
* it was the newest less than the setting `snapshots_keep` ago, which covers the parity window: what was served is compared with
  the table as it was, and whoever read it may be at it still;
* the ledger needs it. Of a view's table: the last snapshot that is online and everything after it, as the next interval is
  what changed since; what an unfinished interval writes; an append that the ledger has planned and not noted yet, and all after
  it, which may have moved its rows; what was computed and rolled back. Of a source: what a planned range of ticks reads; what a
  computed one read, for as long as it may be corrected (`corrections_keep`; of bootstrapped ticks always, as there is one
  snapshot for all of them; and of all while a correction of the view is recent);
* it is the newest of the table's own history to say a property that some writer left there: the watermark, up to where the
  served log is drained, an engine's checkpoint;
* a snapshot that is kept and is not of the table's own history came from it: without it nobody could tell.

Iceberg's times are the machine's, so ages are judged by the machine's clock, also where a replay has one of its own.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from pyiceberg.table import Table

from lockstep.clock import Clock, from_micros
from lockstep.errors import BadInput, Terminal
from lockstep.lake import Lake
from lockstep.lake.expire import Expired, expire
from lockstep.lake.snapshots import COMPUTE_ID, Snapshot
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import ComputeRow, Mode, State
from lockstep.parity.kept import PARITY_REPORTS
from lockstep.serving.log_rows import SERVED_LOG
from lockstep.settings import Settings
from lockstep.training.evaluations import EVALUATIONS
from lockstep.views import StoredView, UseCase

_MILLISECOND = 1_000
_COUNTS = ("added-", "deleted-", "removed-", "total-", "changed-")
"""What the names of the counts begin with that Iceberg itself puts into each summary."""


@dataclass(frozen=True)
class Kept:
    """One table's history.

    Attributes:
        table: its name.
        reasons: how many snapshots are kept, by the first reason for it.
        expired: what went, or in a dry run would go (then no file is counted).
    """

    table: str
    reasons: Mapping[str, int]
    expired: Expired


def maintain(
    settings: Settings, use_case: UseCase, lake: Lake, ledger: Ledger, *, dry_run: bool = False
) -> list[Kept]:
    """Expire what nobody needs of the sources, the views' tables, the served log and the parity reports.

    Other tables of the lake are left alone. It is safe at any time, beside every other run.

    Raises:
        BadInput: snapshots are to be kept for less than the parity window.
        Transient: a table changed in the same moment; the ones before it are done.
        Terminal: files could not be removed; all tables are done, and nothing refers to these files any more.
    """
    if settings.snapshots_keep < settings.parity_max_age:
        raise BadInput(
            f"snapshots_keep is {settings.snapshots_keep}, and a parity report may be {settings.parity_max_age} old: "
            "what it compares would be gone",
            hint="raise snapshots_keep, or lower parity_max_age",
        )
    views = {view.table: view for view in use_case.views}
    names = dict.fromkeys(
        [*(source.table for source in use_case.sources), *views, SERVED_LOG, PARITY_REPORTS, EVALUATIONS]
    )
    # Before any table is loaded: what is planned from now on reads what is the newest now, or newer.
    read = _sources_read(settings, ledger)
    done = [
        _maintained(
            settings,
            lake,
            name,
            _of_view(lake, ledger, views[name]) if name in views else _Need(),
            read,
            dry_run=dry_run,
        )
        for name in names
        if lake.exists(name)
    ]
    if left := {path: why for kept in done for path, why in kept.expired.left.items()}:
        path, why = next(iter(left.items()))
        raise Terminal(
            f"{len(left)} files of expired snapshots could not be removed, first {path}: {why}",
            hint="nothing refers to them: remove them, or let an engine remove orphan files",
        )
    return done


@dataclass(frozen=True)
class _Need:
    """What the ledger needs of a view's table.

    Attributes:
        since: all from this sequence number on; None if there is no such number.
        computed: the ids of the ranges of ticks that are computed.
    """

    since: int | None = None
    computed: frozenset[str] = frozenset()


def _maintained(
    settings: Settings, lake: Lake, name: str, need: _Need, read: Mapping[str, Mapping[int, str]], *, dry_run: bool
) -> Kept:
    table = lake.table(name)
    reasons = _reasons(table, lake.lineage(name), settings, need, read.get(name, {}))
    gone = {s.snapshot_id for s in table.snapshots()} - reasons.keys()
    counts = dict(Counter(reasons.values()))
    return Kept(name, counts, Expired(len(gone), 0, {}) if dry_run else expire(table, gone))


def _of_view(lake: Lake, ledger: Ledger, view: StoredView) -> _Need:
    rows = ledger.materializations(view.name, lake.table_uuid(view.table))
    committed = [row.sequence_to for row in rows if row.state is State.COMMITTED]
    unfinished = [row.writes_from for row in rows if row.state is not State.COMMITTED]
    computes = ledger.computes(view.name)
    planned = frozenset(str(row.id) for row in computes if row.state is not State.COMMITTED)
    appended = [s.sequence for s in lake.snapshots(view.table) if s.properties.get(COMPUTE_ID) in planned]
    return _Need(
        since=min([*committed[-1:], *unfinished, *appended], default=None),
        computed=frozenset(str(row.id) for row in computes) - planned,
    )


def _sources_read(settings: Settings, ledger: Ledger) -> Mapping[str, Mapping[int, str]]:
    """Return, by source table, the snapshots that ranges of ticks read or may read again, each with why.

    The views are the ledger's: one that is not declared any more may be again.
    """
    found: dict[str, dict[int, str]] = {}
    for view in ledger.computed_views():
        rows = ledger.computes(view)
        for row in rows:
            if why := _may_read(settings, rows, row):
                for table, snapshot in row.sources.items():
                    found.setdefault(table, {}).setdefault(snapshot, f"{why} of {view}")
    return found


def _may_read(settings: Settings, rows: Iterable[ComputeRow], row: ComputeRow) -> str:
    now = settings.clock.now()
    if row.state is not State.COMMITTED:
        return "planned ticks"
    # Of a correction that is under way some ranges may not be planned yet.
    correcting = any(r.mode is Mode.CORRECT and r.planned_at >= now - settings.snapshots_keep for r in rows)
    recent = row.planned_at >= now - settings.corrections_keep
    return "corrections" if correcting or recent or row.mode is Mode.BOOTSTRAP else ""


def _reasons(
    table: Table, lineage: Iterable[Snapshot], settings: Settings, need: _Need, read: Mapping[int, str]
) -> dict[int, str]:
    """Return the snapshots to keep by id, each with the first reason for it."""
    oldest = Clock().now() - settings.snapshots_keep
    reasons = {ref.snapshot_id: "branches and tags" for ref in table.metadata.refs.values()}
    own = {snapshot.id for snapshot in lineage}
    said, until = _newest_to_say(lineage), _newest_until(table)
    for snapshot in map(Snapshot.of, table.snapshots()):
        young = snapshot.id not in until or until[snapshot.id] >= oldest
        for reason in _why(snapshot, need, young=young, rolled_back=snapshot.id not in own):
            reasons.setdefault(snapshot.id, reason)
        if snapshot.id in read:
            reasons.setdefault(snapshot.id, read[snapshot.id])
        if snapshot.id in said:
            reasons.setdefault(snapshot.id, f"says {said[snapshot.id]}")
    parents = {s.snapshot_id: s.parent_snapshot_id for s in table.snapshots()}
    for kept in [snapshot for snapshot in reasons if snapshot not in own]:
        parent = parents.get(kept)
        while parent is not None and parent in parents:
            reasons.setdefault(parent, "where another history began")
            parent = None if parent in own else parents[parent]
    return reasons


def _why(snapshot: Snapshot, need: _Need, *, young: bool, rolled_back: bool) -> Iterator[str]:
    if young:
        yield "snapshots_keep"
    if need.since is not None and snapshot.sequence >= need.since:
        yield "online, or on its way"
    if rolled_back and snapshot.properties.get(COMPUTE_ID) in need.computed:
        yield "ticks that were rolled back"


def _newest_until(table: Table) -> dict[int, datetime]:
    """Return until when each snapshot was the newest; the newest is not among them."""
    ordered = sorted(table.snapshots(), key=lambda s: s.sequence_number or 0)
    return {older.snapshot_id: from_micros(newer.timestamp_ms * _MILLISECOND) for older, newer in pairwise(ordered)}


def _newest_to_say(lineage: Iterable[Snapshot]) -> dict[int, str]:
    """Return the newest snapshots to say a property, each with the first such property; counts are left out."""
    newest: dict[str, int] = {}
    for snapshot in lineage:
        newest |= {name: snapshot.id for name in snapshot.properties if not name.startswith(_COUNTS)}
    return {snapshot: name for name, snapshot in sorted(newest.items(), reverse=True)}

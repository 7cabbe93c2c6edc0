"""How much of the tables' history is kept, and why: what nobody can ask for any more is expired.

A snapshot is kept while any of these holds, in this order:

* a branch or tag names it: the head of the table, or a training cut (`contract.py`);
* it is younger than the setting `snapshots_keep`, which covers the parity window: what was served is compared with the
  table as it was;
* the ledger needs it. Of a view's table: the last snapshot that is online and everything after it, as the next interval is
  what changed since; what an unfinished interval writes; an append that the ledger does not know of yet. Of a source: what a
  planned range of ticks reads; what a computed one read, for as long as it may be corrected (`corrections_keep`; of
  bootstrapped ticks always, as there is one snapshot for all of them);
* it is the newest of the table's own history to say a property that some writer left there: the watermark, up to where the
  served log is drained, an engine's checkpoint.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pyiceberg.table import Table

from lockstep.clock import from_micros
from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.lake.expire import Expired, expire
from lockstep.lake.snapshots import COMPUTE_ID, Snapshot
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode, State
from lockstep.parity.report import PARITY_REPORTS
from lockstep.serving.log import SERVED_LOG
from lockstep.settings import Settings
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
        Transient: another writer committed first, to one table; the ones before it are done.
    """
    if settings.snapshots_keep < settings.parity_max_age:
        raise BadInput(
            f"snapshots_keep is {settings.snapshots_keep}, and a parity report may be {settings.parity_max_age} old: "
            "what it compares would be gone",
            hint="raise snapshots_keep, or lower parity_max_age",
        )
    views = {view.table: view for view in use_case.views}
    names = dict.fromkeys([*(source.table for source in use_case.sources), *views, SERVED_LOG, PARITY_REPORTS])
    # Before any table is loaded: what is planned from now on names a snapshot that is the newest by then.
    read = _sources_read(settings, use_case, ledger)
    done: list[Kept] = []
    for name in (name for name in names if lake.exists(name)):
        in_use = _online(lake, ledger, views[name]) if name in views else _Need()
        table = lake.table(name)
        reasons = _reasons(table, lake.lineage(name), settings, in_use, read.get(name, {}))
        gone = {s.snapshot_id for s in table.snapshots()} - reasons.keys()
        counts: dict[str, int] = {}
        for reason in reasons.values():
            counts[reason] = counts.get(reason, 0) + 1
        done.append(Kept(name, counts, Expired(len(gone), 0) if dry_run else expire(table, gone)))
    return done


@dataclass(frozen=True)
class _Need:
    """What the ledger needs of a view's table: all from a sequence number on (None: nothing), and appends it does not know."""

    since: int | None = None
    known: frozenset[str] = frozenset()


def _online(lake: Lake, ledger: Ledger, view: StoredView) -> _Need:
    rows = ledger.materializations(view.name, lake.table_uuid(view.table))
    committed = [row.sequence_to for row in rows if row.state is State.COMMITTED]
    unfinished = [row.writes_from for row in rows if row.state is not State.COMMITTED]
    # A row that is given up may be all there is: then nothing is online, and everything is written anew from what there is.
    since = min([*committed[-1:], *unfinished], default=None)
    computed = {str(row.id) for row in ledger.computes(view.name) if row.state is State.COMMITTED}
    return _Need(since, frozenset(computed))


def _sources_read(settings: Settings, use_case: UseCase, ledger: Ledger) -> Mapping[str, Mapping[int, str]]:
    """Return, by source table, the snapshots that ranges of ticks read or may read again, each with why."""
    found: dict[str, dict[int, str]] = {}
    oldest = settings.clock.now() - settings.corrections_keep
    for view in use_case.views:
        for row in ledger.computes(view.name):
            if row.state is not State.COMMITTED:
                why = f"planned ticks of {view.name}"
            elif row.mode is Mode.BOOTSTRAP or row.planned_at >= oldest:
                why = f"corrections of {view.name}"
            else:
                continue
            for table, snapshot in row.sources.items():
                found.setdefault(table, {}).setdefault(snapshot, why)
    return found


def _reasons(
    table: Table, lineage: Iterable[Snapshot], settings: Settings, need: _Need, read: Mapping[int, str]
) -> dict[int, str]:
    """Return the snapshots to keep by id, each with the first reason for it."""
    oldest = settings.clock.now() - settings.snapshots_keep
    reasons = {ref.snapshot_id: "branches and tags" for ref in table.metadata.refs.values()}
    said = _newest_to_say(lineage)
    for living in table.snapshots():
        snapshot = Snapshot.of(living)
        young = from_micros(living.timestamp_ms * _MILLISECOND) >= oldest
        for reason in _why(snapshot, need, young=young):
            reasons.setdefault(snapshot.id, reason)
        if snapshot.id in read:
            reasons.setdefault(snapshot.id, read[snapshot.id])
        if snapshot.id in said:
            reasons.setdefault(snapshot.id, f"says {said[snapshot.id]}")
    return reasons


def _why(snapshot: Snapshot, need: _Need, *, young: bool) -> Iterator[str]:
    if young:
        yield "snapshots_keep"
    if need.since is not None and snapshot.sequence >= need.since:
        yield "online, or on its way"
    if COMPUTE_ID in snapshot.properties and snapshot.properties[COMPUTE_ID] not in need.known:
        yield "ticks that the ledger does not know yet"


def _newest_to_say(lineage: Iterable[Snapshot]) -> dict[int, str]:
    """Return the newest snapshots to say a property, each with the first such property; counts are left out."""
    newest: dict[str, int] = {}
    for snapshot in lineage:
        newest |= {name: snapshot.id for name in snapshot.properties if not name.startswith(_COUNTS)}
    return {snapshot: name for name, snapshot in sorted(newest.items(), reverse=True)}

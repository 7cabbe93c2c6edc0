"""Compute the ticks of a stored view into its Iceberg table: which of them, in which mode, from what."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lockstep.clock import MICROSECOND, from_micros, require_zone, to_micros
from lockstep.errors import BadInput, UseCaseError, nearest
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import ComputeRow, Mode, State
from lockstep.settings import Settings
from lockstep.views import ticks
from lockstep.views.declare import StoredView
from lockstep.views.execution import Appended, Execution
from lockstep.views.intake import check_source, current_source, ensure_table
from lockstep.views.latest import LatestView
from lockstep.views.latest_ticks import LatestTicks
from lockstep.views.ticks import TickQuery
from lockstep.views.windowed import WindowedView
from lockstep.views.windowed_ticks import WindowedTicks

_QUERIES: Mapping[str, Callable[[Any], TickQuery[StoredView]]] = {
    WindowedView.kind: WindowedTicks,
    LatestView.kind: LatestTicks,
}


@dataclass(frozen=True)
class Computed:
    """What a run left in the view's table.

    Attributes:
        tick: the view's watermark: the last tick computed.
        snapshot_id: the snapshot that the last range committed.
        rows: the rows this run appended; 0 when there was nothing to do.
        quarantined: the source rows its ranges left out, see `intake.register_source`.
    """

    view: str
    tick: datetime
    snapshot_id: int | None
    rows: int
    quarantined: int = 0


@dataclass(frozen=True)
class Part:
    """The ticks `after < T <= last` of a back-fill, and how they are computed."""

    mode: Mode
    after: datetime
    last: datetime


def compute(settings: Settings, lake: Lake, ledger: Ledger, view: StoredView, up_to: datetime) -> Computed:
    """Compute every tick up to `up_to` that is not computed yet, live: from what the sources hold now.

    Running it again is harmless: a range that was planned is finished with the snapshots and the time it was planned with.

    Raises:
        BadInput: `up_to` lies in the future, or the source is empty.
        SchemaDrift: the source or the table is not what the view declares, or was computed under another definition.
        Transient: another run claimed some of these ticks meanwhile.
        UseCaseError: nobody computes views of this kind, or a value, sum or square does not fit its column.
    """
    execution = _execution(settings, lake, ledger, view)
    _refuse_future(settings, up_to)
    ensure_table(lake, view)
    tiles = execution.settle()
    tick = _tick_at(view, up_to)
    start = tiles[-1].tick_to if tiles else tick - view.every
    if tick <= start:
        return _nothing(view, tiles, start)
    return _plan_and_finish(execution, Mode.LIVE, start, tick)


def bootstrap(
    settings: Settings, lake: Lake, ledger: Ledger, view: StoredView, start: datetime, end: datetime
) -> Computed:
    """Compute the ticks `start < T <= end` before the view's first live one as production would have seen them.

    Ticks whose compute_lag has not passed yet are left to live, those that are computed already are left alone.

    A tick reads the source rows that were known compute_lag after it, and its rows carry that time as created. Ticks before
    the first computed one change nothing after it: there every live key has a row, as the table was empty before.

    Raises:
        BadInput: the range is reversed, lies in the future, would leave a hole, or all of it comes after a live tick.
        SchemaDrift: the source or the table is not what the view declares, or was computed under another definition.
        Transient: another run claimed some of these ticks meanwhile.
        UseCaseError: nobody computes views of this kind, or a value, sum or square does not fit its column.
    """
    execution = _execution(settings, lake, ledger, view)
    _refuse_future(settings, end)
    first, last = _known_ticks(settings, view, start, end)
    ensure_table(lake, view)
    tiles = execution.settle()
    if not tiles:
        return _plan_and_finish(execution, Mode.BOOTSTRAP, first, last)
    earliest, reached = tiles[0].tick_from, tiles[-1].tick_to
    _refuse_hole(view, tiles, last)
    is_live = any(tile.mode is Mode.LIVE for tile in tiles)
    if is_live and first >= earliest:
        raise BadInput(
            f"{view.name} has live ticks, and is computed since {earliest.isoformat()}: none of these is bootstrapped",
            hint="`lockstep backfill` computes each tick in the way that is right for it",
        )
    done = _nothing(view, tiles, reached)
    if first < earliest:
        done = _plan_and_finish(execution, Mode.BOOTSTRAP, first, earliest)
    if last > reached and not is_live:
        return _joined(done, _plan_and_finish(execution, Mode.BOOTSTRAP, reached, last))
    return done


def correct(
    settings: Settings, lake: Lake, ledger: Ledger, view: StoredView, start: datetime, end: datetime
) -> Computed:
    """Compute the ticks `start < T <= end` again, which are computed already: a bug in the view was fixed.

    Each reads what it read the first time: the same snapshots, with the same rows in quarantine. Rows are written where the
    table's answer differs from the view's value, and carry the planned time as created; so training on an old t sees them only
    when it asks as of now. Where the view has no value and the table does, the row says that there is nothing: zeros of a
    windowed view, nulls of a latest one.

    Each range that was computed at once is corrected at once, in the order of the ticks, also if nothing differs.

    Raises:
        BadInput: some of it is not computed, or a snapshot that was read has expired; nothing was appended.
        SchemaDrift: the source or the table is not what the view declares.
        Transient: another run appended meanwhile.
        UseCaseError: nobody computes views of this kind, its ticks have another length now, or a value does not fit.
    """
    execution = _execution(settings, lake, ledger, view)
    first, last = _tick_at(view, start), _tick_at(view, end)
    if last <= first:
        raise BadInput(f"{view.name}: there is no tick after {start.isoformat()} up to {end.isoformat()}")
    ensure_table(lake, view)
    tiles = [tile for tile in execution.settle(tiles=False) if tile.state is State.COMMITTED]
    if any(to_micros(at) % (view.every // MICROSECOND) for tile in tiles for at in (tile.tick_from, tile.tick_to)):
        raise UseCaseError(
            f"view {view.name} had ticks of another length than {view.every}", hint="give it a new name"
        )
    if not tiles or first < tiles[0].tick_from or last > tiles[-1].tick_to:
        computed = (
            f"after {tiles[0].tick_from.isoformat()} up to {tiles[-1].tick_to.isoformat()}" if tiles else "nowhere"
        )
        raise BadInput(
            f"{view.name} is computed {computed}: only those ticks can be corrected",
            hint="`lockstep backfill` computes each tick in the way that is right for it",
        )
    tiles = [tile for tile in tiles if tile.tick_from < last and first < tile.tick_to]
    for tile in tiles:
        execution.check_source(tile)
    done = _nothing(view, execution.tiles(), last)
    for tile in tiles:
        after, up_to = max(first, tile.tick_from), min(last, tile.tick_to)
        row = ledger.plan_correct(view.name, after, up_to, tile.sources, settings.clock.now())
        while (row.tick_from, row.tick_to) != (after, up_to):  # somebody else's, which was planned first
            execution.finish(row)
            row = ledger.plan_correct(view.name, after, up_to, tile.sources, settings.clock.now())
        done = _joined(done, _computed(execution, execution.finish(row)))
    return done


def plan_backfill(
    settings: Settings, ledger: Ledger, view: StoredView, start: datetime, end: datetime
) -> tuple[Part, ...]:
    """Return how the ticks `start < T <= end` are computed, in the order in which that is done; nothing is changed.

    Computed ones are corrected, those before the first computed one bootstrapped, and what is missing after the last one
    computed live, all of it. Ticks whose compute_lag has not passed yet are left to the next run.

    Raises:
        BadInput: the range is reversed, lies in the future, or would leave a hole before the first computed tick.
    """
    _refuse_future(settings, end)
    first, last = _known_ticks(settings, view, start, end)
    tiles = [row for row in ledger.computes(view.name) if row.mode is not Mode.CORRECT]
    if not tiles:
        return (Part(Mode.BOOTSTRAP, first, last),)
    _refuse_hole(view, tiles, last)
    earliest = tiles[0].tick_from
    done = [tile for tile in tiles if tile.state is State.COMMITTED]
    since, reached = (done[0].tick_from, done[-1].tick_to) if done else (earliest, earliest)
    parts = [
        Part(Mode.CORRECT, max(first, since), min(last, reached)),
        Part(Mode.BOOTSTRAP, first, earliest),
        Part(Mode.LIVE, reached, last),
    ]
    return tuple(part for part in parts if part.after < part.last)


def backfill(
    settings: Settings, lake: Lake, ledger: Ledger, view: StoredView, start: datetime, end: datetime
) -> Computed:
    """Compute the ticks `start < T <= end`, each in the way that is right for it: see `plan_backfill`.

    Raises:
        BadInput: the range is reversed, lies in the future, would leave a hole, or reads a snapshot that has expired.
        SchemaDrift: the source or the table is not what the view declares, or was computed under another definition.
        Transient: another run claimed some of these ticks meanwhile, or appended first.
        UseCaseError: nobody computes views of this kind, or a value, sum or square does not fit its column.
    """
    execution = _execution(settings, lake, ledger, view)
    _refuse_future(settings, end)
    ensure_table(lake, view)
    execution.settle(tiles=False)
    done: Computed | None = None
    for part in plan_backfill(settings, ledger, view, start, end):
        if part.mode is Mode.LIVE:
            found = compute(settings, lake, ledger, view, part.last)
        else:
            run = correct if part.mode is Mode.CORRECT else bootstrap
            found = run(settings, lake, ledger, view, part.after, part.last)
        done = found if done is None else _joined(done, found)
    if done is None:
        raise BadInput(f"{view.name}: there is no tick after {start.isoformat()} up to {end.isoformat()}")
    return done


def _execution(settings: Settings, lake: Lake, ledger: Ledger, view: StoredView) -> Execution:
    query = _QUERIES.get(view.kind)
    if query is None:
        raise UseCaseError(
            f"view {view.name} is of the kind {view.kind!r}, whose ticks nobody computes",
            hint=nearest(view.kind, _QUERIES),
        )
    return Execution(settings, lake, ledger, query(view))


def _refuse_future(settings: Settings, time: datetime) -> None:
    now = settings.clock.now()
    if require_zone(time) > now:
        raise BadInput(f"{time.isoformat()} is in the future", hint=f"it is {now.isoformat()} now")


def _refuse_hole(view: StoredView, tiles: Sequence[ComputeRow], last: datetime) -> None:
    if last < tiles[0].tick_from:
        raise BadInput(
            f"{view.name} is computed since {tiles[0].tick_from.isoformat()}: up to {last.isoformat()} would leave a hole",
            hint="let the range reach as far",
        )


def _known_ticks(settings: Settings, view: StoredView, start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """Return the ticks that bound a range of history: a tick is known compute_lag after it."""
    first, last = _tick_at(view, start), _tick_at(view, min(end, settings.clock.now() - view.compute_lag))
    if last <= first:
        raise BadInput(f"{view.name}: there is no tick after {start.isoformat()} up to {end.isoformat()}")
    return first, last


def _tick_at(view: StoredView, time: datetime) -> datetime:
    return from_micros(ticks.tick_number(view, time) * (view.every // MICROSECOND))


def _plan_and_finish(execution: Execution, mode: Mode, start: datetime, end: datetime) -> Computed:
    """Claim ticks that nobody computed yet, after looking at what they read, and compute them."""
    view = execution.view
    source = current_source(execution.lake, view)
    check_source(execution.lake, execution.query, source)
    execution.refuse_other_definition(execution.lake.lineage(view.table))
    now = execution.settings.clock.now()
    row = execution.ledger.plan_compute(view.name, mode, start, end, {view.source.table: source}, now)
    return _computed(execution, execution.finish(row))


def _computed(execution: Execution, done: Appended) -> Computed:
    tick = execution.tiles()[-1].tick_to
    return Computed(execution.view.name, tick, done.snapshot.id, done.rows, done.quarantined)


def _nothing(view: StoredView, tiles: Sequence[ComputeRow], tick: datetime) -> Computed:
    last = tiles[-1] if tiles else None
    return Computed(view.name, last.tick_to if last else tick, last.snapshot_id if last else None, 0)


def _joined(first: Computed, then: Computed) -> Computed:
    rows, quarantined = first.rows + then.rows, first.quarantined + then.quarantined
    return Computed(then.view, then.tick, then.snapshot_id, rows, quarantined)

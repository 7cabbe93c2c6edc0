"""Rules for what training says otherwise: first what is known of how the row was read, then which row training takes."""

from lockstep.clock import HOUR_US
from lockstep.contract import View
from lockstep.parity.cause import Cause
from lockstep.parity.compare import Divergence, What
from lockstep.parity.expect import Stored, Version, version_of
from lockstep.parity.rules.clue import Clue, Named, Rule, told_version
from lockstep.parity.rules.converted import converted
from lockstep.parity.sample import ServedRow


def _as_it_was_read(clue: Clue) -> Named | None:
    """Return what made it, of what is known of the reading and folding of this row; what excuses nothing before what does."""
    found = [cause for known, cause in clue.named.items() if _makes(known, clue)]
    gone = {known.view for known, (cause, _) in clue.named.items() if cause is Cause.ERASED}
    found += [skew for view in clue.behind if view not in gone and (skew := _skew(clue, view)) is not None]
    return next((cause for cause in found if not cause[0].excused), found[0] if found else None)


def _read_otherwise(clue: Clue) -> Named | None:
    """Return what is wrong with the view as it was read, be it in other columns: its row is not the one that training takes."""
    return next((cause for known, cause in clue.named.items() if known.view in clue.behind), None)


def _other_versions(clue: Clue) -> Named | None:
    for view in clue.behind:
        used, stored = _used(clue, view), clue.facts.looked[view].rows[clue.divergence.row]
        if used != stored.known:
            return Cause.UNEXPLAINED, f"training takes {told_version(stored.known)}, served {told_version(used)}"
    return None


def _makes(known: Divergence, clue: Clue) -> bool:
    """Tell whether a difference that has its cause makes this one of the same row."""
    if known.what is What.VECTOR:
        return (known.view, known.feature) == (clue.divergence.view, clue.divergence.feature)
    if known.view not in clue.behind:
        return known.what is What.DRIFTED and known.view == clue.divergence.view
    return known.feature is None or known.feature in clue.behind[known.view]


def _used(clue: Clue, view: str) -> Version | None:
    read = clue.row.views.get(view)
    return version_of(read) if read is not None and read.status == "present" else None


def _skew(clue: Clue, name: str) -> Named | None:
    """Return why the served row of a stored view is not training's; None where it is the same row, or nothing tells."""
    used, stored = _used(clue, name), clue.facts.looked[name].rows[clue.divergence.row]
    if used == stored.known:
        return None
    view = clue.facts.contract.view(name)
    return _clock(clue) or _early(clue.row, view, used) or _late(clue.row, view, stored)


def _clock(clue: Clue) -> Named | None:
    if apart := clue.patterns.clocks.get(clue.row.process):
        return Cause.CLOCK_SKEW, f"the clock of this process was {apart}, by one difference for all of its rows"
    ahead = clue.row.request_us - clue.row.read_us
    if abs(ahead) > clue.facts.most_apart_us:
        return Cause.CLOCK_SKEW, f"the request says a time {ahead / HOUR_US:+.1f} h from when it was read"
    return None


def _early(row: ServedRow, view: View, used: Version | None) -> Named | None:
    if used is None or used.created_us + view.visible_lag_us <= row.request_us:
        return None
    return Cause.EARLY, f"created {used.created_us} + visible lag is after the request time {row.request_us}"


def _late(row: ServedRow, view: View, stored: Stored) -> Named | None:
    read = version_of(row.views.get(view.name))
    snapshots = zip(stored.allowed, stored.newest, stored.missed, strict=True)
    # Read in flight, a row may be that of any allowed snapshot that has it as newest.
    matching = [(sequence, missed) for sequence, newest, missed in snapshots if newest == read]
    at, missed = matching[-1] if matching else (stored.allowed[0], stored.missed[0])
    if stored.known is None or stored.brought <= at:
        return None
    waited = row.read_us - (stored.known.created_us if missed is None else missed)
    told = f"training's row came with snapshot {stored.brought}, the store was at {at}"
    if waited <= view.freshness_us:
        return Cause.LATE, told
    return Cause.MATERIALIZATION_GAP, f"{told}, {waited / HOUR_US:.1f} h after the first row that it lacked was made"


def _same_rows(_: Clue) -> Named:
    return Cause.UNEXPLAINED, "the stored rows are the same on both sides"


TRAINING: tuple[Rule, ...] = (_as_it_was_read, _read_otherwise, _other_versions, converted, _same_rows)

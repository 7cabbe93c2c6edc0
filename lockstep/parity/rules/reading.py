"""Rules for what was read: the view is not what it was, the values are not the lake's, or the row is not the newest."""

from math import inf

from lockstep.clock import HOUR_US
from lockstep.parity.cause import Cause
from lockstep.parity.expect import expired, version_of
from lockstep.parity.rules.clue import Clue, Named, Rule, told_version
from lockstep.parity.rules.converted import converted

MOST_CORRUPT = 0.5
"""Of the compared rows of a column: where more of them are wrong, it is no damage to single rows."""


# The view as a whole.


def _drifted(clue: Clue) -> Named:
    name = clue.divergence.view
    stored = any(view.name == name for view in clue.facts.contract.views)
    return Cause.SCHEMA_DRIFT if stored else Cause.TRANSFORM, clue.facts.drifted[name]


def _unlogged(_: Clue) -> Named:
    return Cause.UNEXPLAINED, "the log names no reading of it"


def _unvouched(_: Clue) -> Named:
    return (
        Cause.UNVOUCHED,
        "the store was flushed, or a primary of it was or had slots moved, and no run has come since",
    )


def _other_store(_: Clue) -> Named:
    return Cause.UNEXPLAINED, "read from an online store that was not written to, or that was lost meanwhile"


def _erased(clue: Clue) -> Named | None:
    facts, stored = clue.facts, clue.stored
    if not facts.erased or stored.held is not None or any(stored.newest):
        return None
    named = [
        key.name
        for key in clue.view.join_keys
        if clue.row.read_us <= facts.erased.get((key.name, facts.key_sha256(key.name, clue.row.keys[key.name])), -inf)
    ]
    return (Cause.ERASED, f"a receipt names this {named[0]}, and the lake holds nothing of it") if named else None


# The values are not the lake's.


def _another_column(clue: Clue) -> Named | None:
    source = clue.patterns.misread.get(clue.column)
    if source is None:
        return None
    view, column = source
    held, feature = clue.facts.looked[view].rows[clue.divergence.row].held, clue.column[2]
    if held is None or not clue.read.holds(feature, held[column]):
        return None
    told = column if view == clue.divergence.view else f"{view}:{column}"
    return Cause.WRONG_ROW, f"{feature} holds the value of {told}, in the rows of this process that differ"


def _no_such_column(clue: Clue) -> Named | None:
    if clue.column not in clue.patterns.absent:
        return None
    return (
        Cause.SCHEMA_DRIFT,
        f"no row of this process has {clue.column[2]}: the store has it under another name, or not at all",
    )


def _another_key(clue: Clue) -> Named | None:
    found = clue.case.elsewhere.get(clue.divergence.view, {}).get(clue.divergence.row)
    if found is None or not found.keys or clue.row.process not in clue.patterns.foreign:
        return None
    return (
        Cause.WRONG_ROW,
        f"it is the row of the key {', '.join(map(str, found.key))}: (event, created) and all values",
    )


def _systematic(clue: Clue) -> Named | None:
    share = clue.patterns.wrong_share.get(clue.column, 0.0)
    if share <= MOST_CORRUPT:
        return None
    return (
        Cause.UNEXPLAINED,
        f"wrong in {share:.0%} of the rows that the lake holds, of this process or of all, by no rule that is known",
    )


def _corrupt(clue: Clue) -> Named:
    version, expected = told_version(version_of(clue.read)), clue.divergence.expected
    held = f"holds the row of {version} with {expected}" if clue.column[2] else f"never held a row of {version}"
    looked_for = clue.divergence.row in clue.case.elsewhere.get(clue.divergence.view, {})
    told = (
        "no other key has what was served"
        if looked_for
        else "whether another key has what was served was not looked for"
    )
    return Cause.CORRUPTION, f"the lake {held}, and {told}"


# The row is not the newest.


def _in_flight(clue: Clue) -> Named | None:
    if not clue.stored.in_flight:
        return None
    return Cause.IN_FLIGHT, "no snapshot between the two readings of the epoch hash has this row as newest"


def _ttl(clue: Clue) -> Named | None:
    if clue.newest is None or version_of(clue.read) != clue.newest:
        return None
    age, ttl = (clue.row.request_us - clue.newest.event_us) / HOUR_US, clue.view.ttl_us / HOUR_US
    return Cause.TTL, f"it was {age:.1f} h old, the ttl is {ttl:.1f} h, and its status was {clue.read.status}"


def _missing(clue: Clue) -> Named | None:
    if clue.newest is None or clue.read.status != "missing":
        return None
    if expired(clue.view, clue.newest.event_us, clue.row.request_us):
        return None
    return Cause.MISSING, f"the logged snapshot has a row of {told_version(clue.newest)}; none was read"


def _rewritten(clue: Clue) -> Named | None:
    version, newest = version_of(clue.read), clue.newest
    if version is None or newest is None or version.event_us != newest.event_us or not version < newest:
        return None
    return Cause.STALE_REWRITE, f"the row was written again: created {newest.created_us}, served {version.created_us}"


def _never_arrived(clue: Clue) -> Named | None:
    version, newest = version_of(clue.read), clue.newest
    if version is None or newest is None or not version < newest:
        return None
    told = (
        f"the store said that it holds all up to snapshot {clue.stored.allowed[-1]}, which has {told_version(newest)}"
    )
    return Cause.MATERIALIZATION_GAP, f"{told}; {told_version(version)} was served"


def _not_newest(clue: Clue) -> Named:
    return (
        Cause.UNEXPLAINED,
        f"newest in the logged snapshot is {told_version(clue.newest)}, served {told_version(version_of(clue.read))}",
    )


DRIFTED: tuple[Rule, ...] = (_drifted,)
UNLOGGED: tuple[Rule, ...] = (_unlogged,)
UNNAMED_STORE: tuple[Rule, ...] = (_unvouched,)
OTHER_STORE: tuple[Rule, ...] = (_other_store,)
VALUES: tuple[Rule, ...] = (_erased, _another_column, _no_such_column, _another_key, converted, _systematic, _corrupt)
NOT_NEWEST: tuple[Rule, ...] = (_erased, _in_flight, _ttl, _missing, _rewritten, _never_arrived, _not_newest)

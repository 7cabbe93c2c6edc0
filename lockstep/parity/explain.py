"""Name the cause of every difference in a sample, each by a rule that says what it was read from.

Of each way in which a difference is seen, the rules are asked in order, and the first that answers names the cause. A rule looks
at the row, and at what rows of the same process have in common (`patterns.py`). What no rule knows is *unexplained*, or, where
single rows hold what no row ever written held, *corruption*.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.contract import View
from lockstep.parity.cause import Cause
from lockstep.parity.compare import Difference, Divergence, What
from lockstep.parity.expect import Stored, Version, expired, version_of
from lockstep.parity.facts import Facts
from lockstep.parity.investigate import Case
from lockstep.parity.patterns import Patterns
from lockstep.parity.round_trip import conversion
from lockstep.parity.sample import ServedRow, ServedView

MOST_CORRUPT = 0.5
"""Of the compared rows of a column: where more of them are wrong, it is no damage to single rows."""

_HOUR_US = 3_600_000_000

Named = tuple[Cause, str]
"""A cause and its evidence."""


def explain(case: Case, names: Sequence[str] | None = None) -> dict[str, list[Difference]]:
    """Return the differences of each row of a sample, with their causes; of an equal row, none.

    Args:
        case: of at least these rows.
        names: the rows of the sample; None: all. The others are not looked at.
    """
    facts = case.facts
    numbers = list(range(len(facts.rows))) if names is None else [facts.positions[name] for name in names]
    patterns = Patterns(case, numbers)
    return {facts.rows[n].name: _differences(case, patterns, n) for n in numbers}


def _differences(case: Case, patterns: Patterns, n: int) -> list[Difference]:
    divergences, name = case.divergences.get(n, ()), case.facts.rows[n].name
    named: dict[Divergence, Named] = {}
    # What training says of a row is explained by what is known of how it was read and folded.
    for divergence in sorted(divergences, key=lambda d: d.what is What.TRAINING):
        clue = Clue(case, patterns, divergence, named)
        named[divergence] = next(found for rule in RULES[divergence.what] if (found := rule(clue)) is not None)
    return [
        Difference(name, d.what.kind, d.view, d.feature, _plain(d.served), _plain(d.expected), *named[d])
        for d in divergences
    ]


@dataclass(frozen=True)
class Clue:
    """One difference, and all that a rule may look at.

    Attributes:
        case: the rows and what is known of them.
        patterns: what the rows of the sample have in common.
        divergence: the difference.
        named: the causes of the row's differences that are named already.
    """

    case: Case
    patterns: Patterns
    divergence: Divergence
    named: Mapping[Divergence, Named]

    @property
    def facts(self) -> Facts:
        """What is known of all rows."""
        return self.case.facts

    @property
    def row(self) -> ServedRow:
        """The served row."""
        return self.facts.rows[self.divergence.row]

    @property
    def view(self) -> View:
        """The stored view that the difference lies in."""
        return self.facts.contract.view(self.divergence.view)

    @property
    def stored(self) -> Stored:
        """What the lake says of the row and this view."""
        return self.facts.looked[self.divergence.view].rows[self.divergence.row]

    @property
    def read(self) -> ServedView:
        """What was read of this view."""
        return self.row.views[self.divergence.view]

    @property
    def column(self) -> tuple[str, str, str]:
        """The (process, view, column)."""
        return self.row.process, self.divergence.view, self.divergence.feature or ""

    @property
    def newest(self) -> Version | None:
        """The key's newest row in the last snapshot that the row may have been read from."""
        return self.stored.newest[-1]

    @property
    def behind(self) -> Mapping[str, frozenset[str]]:
        """The stored views that a feature comes from, with the columns: its own, or those that its on-demand view reads."""
        view, feature = self.divergence.view, self.divergence.feature
        on_demand = next((o for o in self.facts.contract.on_demand if o.name == view), None)
        if on_demand is None:
            return {view: frozenset({feature or ""})}
        sources = dict.fromkeys(source for source, _ in on_demand.reads)
        return {source: frozenset(c for of, c in on_demand.reads if of == source) for source in sources}


Rule = Callable[[Clue], Named | None]


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
        if (key.name, facts.key_sha256(key.name, clue.row.keys[key.name])) in facts.erased
    ]
    return (Cause.ERASED, f"a receipt names this {named[0]}, and the lake holds nothing of it") if named else None


# What was read of a view is not what the lake holds.


def _another_column(clue: Clue) -> Named | None:
    source = clue.patterns.misread.get(clue.column)
    if source is None:
        return None
    view, column = source
    held, feature = clue.facts.looked[view].rows[clue.divergence.row].held, clue.column[2]
    if held is None or not clue.read.holds(feature, held[column]):
        return None
    told = column if view == clue.divergence.view else f"{view}:{column}"
    return Cause.WRONG_ROW, f"{feature} holds the value of {told}, in the rows of this process that the lake holds"


def _no_such_column(clue: Clue) -> Named | None:
    if clue.column not in clue.patterns.absent:
        return None
    return (
        Cause.SCHEMA_DRIFT,
        f"no row of this process has {clue.column[2]}: the store has it under another name, or not at all",
    )


def _another_key(clue: Clue) -> Named | None:
    found = clue.case.elsewhere.get(clue.divergence.view, {}).get(clue.divergence.row)
    if found is None or not (found.tells or clue.row.process in clue.patterns.foreign):
        return None
    return (
        Cause.WRONG_ROW,
        f"it is the row of the key {', '.join(map(str, found.key))}: (event, created) and all values",
    )


def _converted(clue: Clue) -> Named | None:
    told = conversion(clue.divergence.expected, clue.divergence.served)
    source = {
        What.VALUES: "in the lake",
        What.VECTOR: "by the logged inputs and stored values",
        What.SCORE: "what the model says to this vector",
        What.TRAINING: "in training",
    }.get(clue.divergence.what)
    return (Cause.TYPE, f"it is {clue.divergence.expected} {source}: {told}") if told and source else None


def _systematic(clue: Clue) -> Named | None:
    share = clue.patterns.wrong_share.get(clue.column, 0.0)
    if share <= MOST_CORRUPT:
        return None
    return (
        Cause.UNEXPLAINED,
        f"wrong in {share:.0%} of this process's rows that the lake holds, by no rule that is known",
    )


def _corrupt(clue: Clue) -> Named:
    version, expected = _told(version_of(clue.read)), clue.divergence.expected
    held = f"holds the row of {version} with {expected}" if clue.column[2] else f"never held a row of {version}"
    return Cause.CORRUPTION, f"the lake {held}, and no other key has what was served"


# The row is not the newest.


def _in_flight(clue: Clue) -> Named | None:
    if not clue.stored.in_flight:
        return None
    return Cause.IN_FLIGHT, "no snapshot between the two readings of the epoch hash has this row as newest"


def _ttl(clue: Clue) -> Named | None:
    if clue.newest is None or version_of(clue.read) != clue.newest:
        return None
    age, ttl = (clue.row.request_us - clue.newest.event_us) / _HOUR_US, clue.view.ttl_us / _HOUR_US
    return Cause.TTL, f"it was {age:.1f} h old, the ttl is {ttl:.1f} h, and its status was {clue.read.status}"


def _missing(clue: Clue) -> Named | None:
    if clue.newest is None or clue.read.status != "missing":
        return None
    if expired(clue.view, clue.newest.event_us, clue.row.request_us):
        return None
    return Cause.MISSING, f"the logged snapshot has a row of {_told(clue.newest)}; none was read"


def _rewritten(clue: Clue) -> Named | None:
    version, newest = version_of(clue.read), clue.newest
    if version is None or newest is None or version.event_us != newest.event_us or not version < newest:
        return None
    return Cause.STALE_REWRITE, f"the row was written again: created {newest.created_us}, served {version.created_us}"


def _never_arrived(clue: Clue) -> Named | None:
    version, newest = version_of(clue.read), clue.newest
    if version is None or newest is None or not version < newest:
        return None
    told = f"the store said that it holds all up to snapshot {clue.stored.allowed[-1]}, which has {_told(newest)}"
    return Cause.MATERIALIZATION_GAP, f"{told}; {_told(version)} was served"


def _not_newest(clue: Clue) -> Named:
    return (
        Cause.UNEXPLAINED,
        f"newest in the logged snapshot is {_told(clue.newest)}, served {_told(version_of(clue.read))}",
    )


# The vector or the score is not what the logged values make.


def _vector_of_another(clue: Clue) -> Named | None:
    called = clue.patterns.vectors_of_others.get(clue.divergence.row)
    return (Cause.VERSION_MIX, f"the vector is one of {called}") if called else None


def _other_order(clue: Clue) -> Named | None:
    if clue.divergence.row not in clue.patterns.reordered:
        return None
    return Cause.VERSION_MIX, "the vector has the right values at other places, as of no contract that is registered"


def _vector_of_another_row(clue: Clue) -> Named | None:
    row = clue.patterns.folded_from.get(clue.divergence.row)
    return (Cause.WRONG_ROW, f"the vector is that of the row {row}") if row else None


def _all_converted(clue: Clue) -> Named | None:
    """Return the conversion, if each of the vector's differences is one: of many wrong values a few look converted by chance."""
    differing = [d for d in clue.case.divergences[clue.divergence.row] if d.what is What.VECTOR]
    return _converted(clue) if all(conversion(d.expected, d.served) for d in differing) else None


def _stored_but_not_used(clue: Clue) -> Named | None:
    if any(view.name == clue.divergence.view for view in clue.facts.contract.on_demand):
        return None
    return Cause.UNEXPLAINED, "the stored value was logged, and another one put into the vector"


def _another_zone(clue: Clue) -> Named | None:
    moved = clue.patterns.zones.get(clue.row.process)
    if moved is None:
        return None
    return (
        Cause.CLOCK_SKEW,
        f"it is the value for a request {moved / _HOUR_US:+.2f} h away, as in all such rows of this process",
    )


def _transformed(clue: Clue) -> Named:
    on_demand = {view.name for view in clue.facts.contract.on_demand}
    differing = {d.view for d in clue.case.divergences[clue.divergence.row] if d.what is What.VECTOR}
    if differing - on_demand:  # then no function alone is to blame
        return Cause.UNEXPLAINED, "of the vector, values that are stored are others as well"
    return Cause.TRANSFORM, "recomputed from the logged inputs and stored values, which are equal"


def _policy(_: Clue) -> Named:
    return Cause.UNEXPLAINED, "the policy says otherwise of what the logged inputs and stored values make"


def _score_of_another(clue: Clue) -> Named | None:
    called = clue.patterns.scores_of_others.get(clue.divergence.row)
    return (Cause.VERSION_MIX, f"the score is that of {called}") if called else None


def _another_score(_: Clue) -> Named:
    return Cause.UNEXPLAINED, "the model says another score to this vector"


# The vector is not training's.


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
            return Cause.UNEXPLAINED, f"training takes {_told(stored.known)}, served {_told(used)}"
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
        return Cause.CLOCK_SKEW, f"the request says a time {ahead / _HOUR_US:+.1f} h from when it was read"
    return None


def _early(row: ServedRow, view: View, used: Version | None) -> Named | None:
    if used is None or used.created_us + view.visible_lag_us <= row.request_us:
        return None
    return Cause.EARLY, f"created {used.created_us} + visible lag is after the request time {row.request_us}"


def _late(row: ServedRow, view: View, stored: Stored) -> Named | None:
    if stored.known is None or stored.brought <= stored.allowed[-1]:
        return None
    waited = row.read_us - stored.known.created_us
    told = f"training's row came with snapshot {stored.brought}, the store was at {stored.allowed[-1]}"
    if waited <= view.freshness_us:
        return Cause.LATE, told
    return Cause.MATERIALIZATION_GAP, f"{told}, {waited / _HOUR_US:.1f} h after the row was made"


def _same_rows(_: Clue) -> Named:
    return Cause.UNEXPLAINED, "the stored rows are the same on both sides"


_FOREIGN_VALUES: tuple[Rule, ...] = (
    _erased,
    _another_column,
    _no_such_column,
    _another_key,
    _converted,
    _systematic,
    _corrupt,
)
RULES: Mapping[What, tuple[Rule, ...]] = {
    What.DRIFTED: (_drifted,),
    What.UNLOGGED: (_unlogged,),
    What.UNNAMED_STORE: (_unvouched,),
    What.OTHER_STORE: (_other_store,),
    What.NEVER_HELD: _FOREIGN_VALUES,
    What.VALUES: _FOREIGN_VALUES,
    What.NOT_NEWEST: (_erased, _in_flight, _ttl, _missing, _rewritten, _never_arrived, _not_newest),
    What.VECTOR: (
        _vector_of_another,
        _vector_of_another_row,
        _other_order,
        _all_converted,
        _stored_but_not_used,
        _another_zone,
        _transformed,
    ),
    What.REJECTION: (_policy,),
    What.SCORE: (_score_of_another, _converted, _another_score),
    What.TRAINING: (_as_it_was_read, _read_otherwise, _other_versions, _converted, _same_rows),
}
"""Per way in which a difference is seen, the rules in the order in which they are asked; the last one always answers."""


def _plain(value: Any) -> Any:
    """Return a value as a report has it."""
    return [value.event_us, value.created_us] if isinstance(value, Version) else value


def _told(version: Version | None) -> str:
    return f"(event, created) = ({version.event_us}, {version.created_us})" if version else "no row"

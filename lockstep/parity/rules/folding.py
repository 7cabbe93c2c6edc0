"""Rules for what was made of what was read: the vector, the rejection or the score is not what it should be."""

from lockstep.clock import HOUR_US
from lockstep.parity.cause import Cause
from lockstep.parity.compare import What
from lockstep.parity.round_trip import conversion
from lockstep.parity.rules.clue import Clue, Named, Rule
from lockstep.parity.rules.converted import converted


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
    on_demand = {view.name for view in clue.facts.contract.on_demand}
    differing = [d for d in clue.case.divergences[clue.divergence.row] if d.what is What.VECTOR]
    # Another unit of what a function made is another function.
    return (
        converted(clue)
        if all(conversion(d.expected, d.served, units=d.view not in on_demand) for d in differing)
        else None
    )


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
        f"it is the value for a request {moved / HOUR_US:+.2f} h away, as in all such rows of this process",
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


def _not_one_of_both(clue: Clue) -> Named | None:
    if clue.row.score is None and clue.row.rejected is None:
        return Cause.UNEXPLAINED, "it has neither a score nor a rejection"
    if clue.row.score is not None and clue.row.rejected is not None:
        return Cause.UNEXPLAINED, "it has both a score and a rejection"
    return None


def _another_score(_: Clue) -> Named:
    return Cause.UNEXPLAINED, "the model says another score to this vector"


VECTOR: tuple[Rule, ...] = (
    _vector_of_another,
    _vector_of_another_row,
    _other_order,
    _all_converted,
    _stored_but_not_used,
    _another_zone,
    _transformed,
)
REJECTION: tuple[Rule, ...] = (_policy,)
SCORE: tuple[Rule, ...] = (_not_one_of_both, _score_of_another, converted, _another_score)

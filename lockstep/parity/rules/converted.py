"""The rule that values of every kind share: the right value, but for a conversion."""

from lockstep.parity.cause import Cause
from lockstep.parity.compare import What
from lockstep.parity.round_trip import conversion
from lockstep.parity.rules.clue import Clue, Named


def converted(clue: Clue) -> Named | None:
    """Return the conversion that made one value of the other."""
    told = conversion(clue.divergence.expected, clue.divergence.served)
    source = {
        What.VALUES: "in the lake",
        What.VECTOR: "by the logged inputs and stored values",
        What.SCORE: "what the model says to this vector",
        What.TRAINING: "in training",
    }.get(clue.divergence.what)
    return (Cause.TYPE, f"it is {clue.divergence.expected} {source}: {told}") if told and source else None

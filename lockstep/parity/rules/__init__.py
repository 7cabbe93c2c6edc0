"""Rules that name causes, per way in which a difference is seen, in the order in which they are asked."""

from collections.abc import Mapping

from lockstep.parity.compare import What
from lockstep.parity.rules import folding, reading, training
from lockstep.parity.rules.clue import Clue, Named, Rule

RULES: Mapping[What, tuple[Rule, ...]] = {
    What.DRIFTED: reading.DRIFTED,
    What.UNLOGGED: reading.UNLOGGED,
    What.UNNAMED_STORE: reading.UNNAMED_STORE,
    What.OTHER_STORE: reading.OTHER_STORE,
    What.NEVER_HELD: reading.VALUES,
    What.VALUES: reading.VALUES,
    What.NOT_NEWEST: reading.NOT_NEWEST,
    What.VECTOR: folding.VECTOR,
    What.REJECTION: folding.REJECTION,
    What.SCORE: folding.SCORE,
    What.TRAINING: training.TRAINING,
}

__all__ = ["RULES", "Clue", "Named", "Rule"]

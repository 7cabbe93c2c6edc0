"""How many positives are found, and of which kinds, where scores become decisions and where people look."""

import numpy as np

from lockstep.training.evaluation.document import Decision, GroupRecall
from lockstep.training.evaluation.entities import rows_found
from lockstep.training.evaluation.scored import Scored


def decision(scored: Scored, threshold: float) -> Decision:
    """Return what the rows with at least this score hold."""
    flagged = scored.scores >= threshold
    return Decision(
        threshold=threshold,
        flagged=int(np.count_nonzero(flagged)),
        found=int(scored.labels[flagged].sum()),
        positives=scored.positives,
    )


def recall_by_group(scored: Scored, *, threshold: float, top: int) -> tuple[GroupRecall, ...]:
    """Return for each kind of positives how many reach the threshold, and how many are found by who looks at each day's top.

    A positive is found there if its entity is among the top of its day, or was found to be positive on a day before: it is dealt
    with by then. Without groups the kinds are empty.
    """
    if scored.group is None:
        return ()
    positive = scored.labels == 1
    above, seen = scored.scores >= threshold, rows_found(scored, top)
    kinds = np.unique(scored.group[positive])
    return tuple(
        GroupRecall(
            group=int(kind),
            positives=int(np.count_nonzero(of_kind := positive & (scored.group == kind))),
            above_threshold=int(np.count_nonzero(of_kind & above)),
            in_top=int(np.count_nonzero(of_kind & seen)),
        )
        for kind in kinds
    )

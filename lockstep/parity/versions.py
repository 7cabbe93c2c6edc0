"""Find the other version that a vector or a score is of: another contract's order of the features, another version's model."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lockstep.contract import FeatureContract
from lockstep.errors import LockstepError
from lockstep.parity.compare import SAME_SCORE, equal
from lockstep.parity.facts import Facts, Other, scores_of


def vectors_of_others(facts: Facts, numbers: Sequence[int]) -> dict[int, str]:
    """Return of which other version's contract a served vector is, by the row's number; rows of none are left out."""
    found: dict[int, str] = {}
    for other in facts.others() if numbers and facts.remade is not None else ():
        theirs = _arranged(facts, other, numbers)
        if theirs is None or theirs.shape[1] != facts.vectors.shape[1]:
            continue
        same = np.flatnonzero(equal(facts.vectors[list(numbers)], theirs, None).all(axis=1))
        found = {numbers[at]: other.called for at in same.tolist()} | found
    return found


def scores_of_others(facts: Facts, numbers: Sequence[int]) -> dict[int, str]:
    """Return which other version's model gives the served score, by the row's number; rows of none are left out."""
    found: dict[int, str] = {}
    for other in facts.others() if numbers else ():
        vectors = _arranged(facts, other, numbers)
        if vectors is None:
            continue
        try:
            scores = scores_of(other.model_dir, vectors, fallback=other.fallback)
        except LockstepError:  # a version that this release cannot open scored nothing here
            continue
        for n, score in zip(numbers, scores.tolist(), strict=True):
            served = facts.rows[n].score
            if served is not None and abs(score - served) <= SAME_SCORE:
                found.setdefault(n, other.called)
    return found


def _arranged(facts: Facts, other: Other, numbers: Sequence[int]) -> NDArray[np.float64] | None:
    """Return the rows' values in the order of another contract; None where it takes a feature that ours does not."""
    columns = _columns(facts.contract)
    wanted = [columns.get((f.view, f.name)) for f in other.contract.features]
    if facts.remade is None or None in wanted:
        return None
    return np.ascontiguousarray(facts.remade.vectors[list(numbers)][:, [n for n in wanted if n is not None]])


def _columns(contract: FeatureContract) -> Mapping[tuple[str, str], int]:
    return {(f.view, f.name): number for number, f in enumerate(contract.features)}

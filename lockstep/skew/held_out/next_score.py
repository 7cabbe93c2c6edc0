"""Each row of a request is answered with the score of the next one.

Vectors are right, and so are the scores, each for its own key: what was served of a key is another key's, which of all
definitions is that of `wrong_row` alone. It is no `version_mix`: the right version scored all of them. And a cause that holds
leaves nothing to `unexplained`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault, Vectors


@dataclass(frozen=True, kw_only=True)
class NextScore(Fault):
    """Scores are one row early; the last row has the first one's."""

    def posted(self, contract: FeatureContract, vectors: Vectors) -> Vectors:
        """Have the next row scored for each."""
        return np.roll(vectors, -1, axis=0)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it."""
    yield NextScore(
        name="next-score",
        says="each row of a request is answered with the score of the next one",
        causes=frozenset({"wrong_row"}),
    )

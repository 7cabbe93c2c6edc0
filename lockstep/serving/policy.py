"""The value half of the policy: what becomes of a feature that has no value. Training, serving and parity all ask here.

A row without a value looks the same in training, whether no row answered, the row was too old or it held a null; so all three
are one case here too. That a view is late is another matter, which only serving can know (`serving/freshness.py`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lockstep.contract import FeatureContract
from lockstep.serving.refusal import RowRejected


@dataclass(frozen=True)
class Settled:
    """Vectors as the model gets them.

    Attributes:
        vectors: rows by features; NaN where the contract leaves null to the model, and in rejected rows.
        rejected: one boolean a row.
    """

    vectors: NDArray[np.float64]
    rejected: NDArray[np.bool_]


def apply_policy(contract: FeatureContract, vectors: NDArray[np.float64]) -> Settled:
    """Put defaults in and say which rows are rejected.

    Args:
        contract: of each feature, what becomes of a null.
        vectors: rows by features in the contract's order, NaN for null; left as they are.
    """
    columns = list(enumerate(contract.features))
    defaults = [(n, f.default) for n, f in columns if f.default is not None]
    asked = [n for n, f in columns if f.when_null == "reject"]
    settled = vectors.copy() if defaults else vectors
    for number, value in defaults:
        column = settled[:, number]
        column[np.isnan(column)] = value
    rejected = np.zeros(len(settled), dtype=np.bool_)
    for number in asked:
        rejected |= np.isnan(settled[:, number])
    return Settled(settled, rejected)


def require_answerable(contract: FeatureContract, settled: Settled) -> NDArray[np.float64]:
    """Return the vectors of a request, if none of its rows is rejected.

    Raises:
        RowRejected: one is; the first one is named, with its features.
    """
    if not settled.rejected.any():
        return settled.vectors
    row = int(settled.rejected.argmax())
    without = [
        f"{f.view}:{f.name}"
        for number, f in enumerate(contract.features)
        if f.when_null == "reject" and np.isnan(settled.vectors[row, number])
    ]
    raise RowRejected(
        f"instances[{row}] cannot be scored: {', '.join(without)} has no value",
        hint="the model's contract rejects such a row; ask without it, or decide without a score",
    )

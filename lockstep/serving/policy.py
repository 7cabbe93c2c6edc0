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
    settled = vectors.copy() if defaults else vectors
    for number, value in defaults:
        column = settled[:, number]
        column[np.isnan(column)] = value
    rejected = np.zeros(len(settled), dtype=np.bool_)
    for number in _asked(contract):
        rejected |= np.isnan(settled[:, number])
    return Settled(settled, rejected)


def rejections(contract: FeatureContract, settled: Settled) -> dict[int, str]:
    """Return the rows that are rejected, each with the feature for want of which it is: `view:name`, the contract's first."""
    rows = np.flatnonzero(settled.rejected)
    if not rows.size:
        return {}
    asked = _asked(contract)
    names = list(asked.values())
    first = np.isnan(settled.vectors[rows][:, list(asked)]).argmax(axis=1)
    return {row: names[number] for row, number in zip(rows.tolist(), first.tolist(), strict=True)}


def require_answerable(contract: FeatureContract, settled: Settled) -> None:
    """Refuse a request of which a row is rejected.

    Raises:
        RowRejected: one is; the first one is named, with its features.
    """
    rows: list[int] = np.flatnonzero(settled.rejected).tolist()
    if not rows:
        return
    without = [name for number, name in _asked(contract).items() if np.isnan(settled.vectors[rows[0], number])]
    raise RowRejected(
        f"instances[{rows[0]}] cannot be scored: {', '.join(without)} has no value",
        rows,
        hint="the model's contract rejects such a row; ask without those in `rejected`, or decide without a score",
    )


def _asked(contract: FeatureContract) -> dict[int, str]:
    """Return the features without which a row is rejected, by their place in a vector."""
    return {n: f"{f.view}:{f.name}" for n, f in enumerate(contract.features) if f.when_null == "reject"}

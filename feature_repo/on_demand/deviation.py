"""Hold the payment at hand against the card's own payments before it.

With n payments before, their sum s and the sum q of their squares (cents), mean s / n and population standard deviation
sqrt(n q - s^2) / n, the n cancels and whole numbers go up to one final expression:

    amount / mean               = n a / s
    (amount - mean) / deviation = (n a - s) / sqrt(n q - s^2)

n q - s^2 is exact, and so never below zero, while n q is below 2^53: for 100 payments that means amounts up to 9,490.62.
Above, both products are rounded: the deviation of payments that are nearly equal is then imprecise, and counts as none where
it comes out as zero or less. This module imports NumPy alone, because its source is hashed into the contract.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_WINDOWS = (7, 30)


def amount_deviation(columns: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
    """Return the ratio and the z-score of each payment's amount.

    NaN where there is nothing to compare with: no stored row, no payment before or only such of 0.00 (ratio), fewer than two
    or all of one amount (z-score).

    Args:
        columns: `amount_cents` as int64; `nb_tx_{7,30}d`, `amount_cents_{7,30}d` and `amount_cents_squared_{7,30}d` as
            float64, NaN where no row answers.
    """
    cents = columns["amount_cents"]
    features = {}
    for days in _WINDOWS:
        count, total = columns[f"nb_tx_{days}d"], columns[f"amount_cents_{days}d"]
        squares = columns[f"amount_cents_squared_{days}d"]
        spread = np.maximum(count * squares - total * total, 0.0)  # NaN stays NaN
        features[f"amount_to_avg_{days}d"] = _divide(count * cents, total)
        features[f"amount_zscore_{days}d"] = _divide(count * cents - total, np.sqrt(spread))
    return features


def _divide(above: NDArray[np.generic], below: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)

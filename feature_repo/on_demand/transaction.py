"""Fold the payment at hand into what is stored about its card.

No store can hold the payment that is being asked about, so `customer_spend` leaves it out and it is added here: n + 1
payments, (sum + amount) / (n + 1) their mean. This module imports NumPy alone, because its source is hashed into the contract.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_FIRST_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0
_SATURDAY = 5
_LAST_NIGHT_HOUR = 6  # the whole hour counts: 06:59 is night, 07:00 is not
_CENTS = 100
_WINDOWS = (1, 7, 30)


def transaction_context(columns: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
    """Return the features of each payment; those of a card without a stored row are NaN.

    Args:
        columns: `amount_cents` and `request_time_us` (microseconds since 1970-01-01T00:00Z) as int64; `nb_tx_{1,7,30}d` and
            `amount_cents_{1,7,30}d` as float64, NaN where no row answers.
    """
    cents, time = columns["amount_cents"], columns["request_time_us"]
    weekday = (time // _DAY + _FIRST_WEEKDAY) % 7
    features = {
        "tx_amount": cents / _CENTS,
        "tx_during_weekend": (weekday >= _SATURDAY).astype(np.float64),
        "tx_during_night": (time % _DAY // _HOUR <= _LAST_NIGHT_HOUR).astype(np.float64),
    }
    for days in _WINDOWS:
        features[f"customer_nb_tx_{days}d"] = columns[f"nb_tx_{days}d"] + 1.0
    for days in _WINDOWS:
        # One expression, whole numbers up to the single division: the same bits on every engine.
        features[f"customer_avg_amount_{days}d"] = (columns[f"amount_cents_{days}d"] + cents) / (
            _CENTS * (columns[f"nb_tx_{days}d"] + 1.0)
        )
    return features

"""What a payment tells by itself.

The first three features of `transaction_context`, which is published and reads what is stored about the card: they are
worked out again here, so that a model without feature views reads no store. This module imports NumPy alone, because its
source is hashed into the contract.
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


def payment(columns: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
    """Return the features of each payment.

    Args:
        columns: `amount_cents` and `request_time_us` (microseconds since 1970-01-01T00:00Z) as int64.
    """
    cents, time = columns["amount_cents"], columns["request_time_us"]
    weekday = (time // _DAY + _FIRST_WEEKDAY) % 7
    return {
        "tx_amount": cents / _CENTS,
        "tx_during_weekend": (weekday >= _SATURDAY).astype(np.float64),
        "tx_during_night": (time % _DAY // _HOUR <= _LAST_NIGHT_HOUR).astype(np.float64),
    }

"""Hold the reading at hand against what its pump has been doing.

This module imports NumPy alone, because its source is hashed into the contract.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_UM_PER_MM = 1_000
_KPA_PER_BAR = 100
_WINDOWS = ("1d", "7d")


def compare_reading(columns: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
    """Return the features of each reading; NaN compares a pump that stood still, or was never seen.

    Args:
        columns: `vibration_um` and `pressure_kpa` as int64; `readings_{1d,7d}` and `vibration_um_{1d,7d}` as float64, NaN
            where no row answers.
    """
    vibration = columns["vibration_um"]
    features = {"vibration_mm": vibration / _UM_PER_MM, "pressure_bar": columns["pressure_kpa"] / _KPA_PER_BAR}
    for window in _WINDOWS:
        total = columns[f"vibration_um_{window}"]
        over = np.full(len(total), np.nan)
        features[f"vibration_over_mean_{window}"] = np.divide(
            vibration * columns[f"readings_{window}"], total, out=over, where=total > 0
        )
    return features

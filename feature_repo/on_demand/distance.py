"""Hold the place of the payment against the card holder's home.

This module imports NumPy alone, because its source is hashed into the contract.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def terminal_distance(columns: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
    """Return the Euclidean distance from home to terminal, NaN where either is unknown.

    Args:
        columns: `home_x`, `home_y`, `terminal_x` and `terminal_y` as float64, NaN where no row answers.
    """
    across, along = columns["home_x"] - columns["terminal_x"], columns["home_y"] - columns["terminal_y"]
    # Not hypot, whose last bit depends on the C library: each of these operations is rounded correctly on every machine.
    return {"distance_to_terminal": np.sqrt(across * across + along * along)}

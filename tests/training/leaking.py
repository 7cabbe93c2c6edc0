"""An on-demand function that takes what a spine hands in, whatever that is made of."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def pass_on(columns: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Return the rate that was handed in."""
    return {"rate_now": columns["terminal_rate"]}

"""What the model is told of a request itself."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def compare_amount(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request's amount over the card's usual one; NaN of a card that has none."""
    usual = given["v0_f0"]
    ratio = np.full(len(usual), np.nan)
    np.divide(given["amount_cents"], usual, out=ratio, where=usual > 0)
    return {"amount_ratio": ratio}

"""On-demand functions lose the sign of what they return.

The stored parts are equal, the result differs: `transform`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lockstep.contract import FeatureContract
from lockstep.serving.features import Function
from lockstep.skew.fault import Fault


@dataclass(frozen=True, kw_only=True)
class Absolute(Fault):
    """Every result is its absolute value."""

    def functions(self, contract: FeatureContract, functions: Mapping[str, Function]) -> Mapping[str, Function]:
        """Drop the sign of results."""
        return {name: _unsigned(function) for name, function in functions.items()}


def _unsigned(function: Function) -> Function:
    def unsigned(columns: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        return {name: np.abs(values) for name, values in function(columns).items()}

    return unsigned


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it, if anything is made on demand."""
    if contract.on_demand:
        yield Absolute(
            name="absolute",
            says="on-demand functions return absolute values",
            causes=frozenset({"transform"}),
        )

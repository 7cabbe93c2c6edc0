"""On-demand functions are given the inputs of the request's next row, as by an index that is one too great.

What is stored is read of the right key, and the inputs are logged as they were sent; only what the function makes of them
differs: `transform`. It is no `wrong_row`: no key's, view's or column's values stand in another's place.
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
class NextInputs(Fault):
    """Inputs are those of the next row, the last row's those of the first."""

    def functions(self, contract: FeatureContract, functions: Mapping[str, Function]) -> Mapping[str, Function]:
        """Move what they are given from the request."""
        inputs = {view.name: [column.name for column in view.inputs] for view in contract.on_demand}
        return {name: _moved(function, inputs[name]) for name, function in functions.items()}


def _moved(function: Function, inputs: list[str]) -> Function:
    def moved(columns: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        return function({**columns, **{name: np.roll(columns[name], -1) for name in inputs}})

    return moved


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it, if a function takes an input of the request."""
    if any(view.inputs for view in contract.on_demand):
        yield NextInputs(
            name="next-inputs",
            says="on-demand functions are given the inputs of the request's next row",
            causes=frozenset({"transform"}),
        )

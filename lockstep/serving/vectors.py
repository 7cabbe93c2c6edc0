"""From a request and what was read for it to the model's vectors: what a transformer does between reading and scoring."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lockstep.contract import FeatureContract
from lockstep.online.reader import Reading, ViewRows
from lockstep.serving.features import Function, build_vectors, complete_inputs
from lockstep.serving.policy import apply_policy, require_answerable
from lockstep.serving.request import Request

PRESENT = "present"


def vectors_of(
    contract: FeatureContract, functions: Mapping[str, Function], request: Request, reading: Reading
) -> NDArray[np.float64]:
    """Return the vectors of a request's rows as the model gets them.

    The errors are those of `build_vectors`.

    Raises:
        RowRejected: a row lacks a value that the contract asks for.
    """
    inputs = complete_inputs(contract, request.inputs, request.times_us)
    usable = {
        (view.name, column.name): reading.views[view.name].usable(column.name)
        for view in contract.views
        for column in view.columns
    }
    return require_answerable(contract, apply_policy(contract, build_vectors(contract, functions, usable, inputs)))


def flags_of(views: Mapping[str, ViewRows], rows: int) -> list[list[str]]:
    """Return `view:missing` and `view:stale` for each row they hold for."""
    flags: list[list[str]] = [[] for _ in range(rows)]
    for name, view in views.items():
        for row, status in enumerate(view.status):
            if status != PRESENT:
                flags[row].append(f"{name}:{status}")
    return flags

"""From a request and what was read for it to the model's vectors: what a transformer does between reading and scoring."""

from collections.abc import Collection, Mapping

from lockstep.contract import FeatureContract
from lockstep.online.reader import Reading, ViewRows
from lockstep.serving.features import Function, build_vectors, complete_inputs
from lockstep.serving.policy import Settled, apply_policy
from lockstep.serving.request import Request

PRESENT = "present"
REJECTED = "rejected"


def vectors_of(
    contract: FeatureContract, functions: Mapping[str, Function], request: Request, reading: Reading
) -> Settled:
    """Return the vectors of a request's rows as the model gets them, and which rows it does not get.

    The errors are those of `build_vectors`.
    """
    inputs = complete_inputs(contract, request.inputs, request.times_us)
    usable = {
        (view.name, column.name): reading.views[view.name].usable(column.name)
        for view in contract.views
        for column in view.columns
    }
    return apply_policy(contract, build_vectors(contract, functions, usable, inputs))


def flags_of(views: Mapping[str, ViewRows], rows: int, rejected: Collection[int] = ()) -> list[list[str]]:
    """Return `view:missing`, `view:stale` and `rejected` for each row they hold for."""
    flags: list[list[str]] = [[] for _ in range(rows)]
    for name, view in views.items():
        for row, status in enumerate(view.status):
            if status != PRESENT:
                flags[row].append(f"{name}:{status}")
    for row in rejected:
        flags[row].append(REJECTED)
    return flags

"""The models of a folder that may answer: the main one and its fallback."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from lockstep.contract import FeatureContract
from lockstep.serving.features import Function, load_functions

SHADOW_HEADER = "x-lockstep-shadow"
"""Nobody will act on the answer; a service that takes traffic refuses it."""

MODEL_HEADER = "x-lockstep-model"
"""Who shall answer; a service that takes traffic refuses it."""

FALLBACK = "fallback"


@dataclass(frozen=True)
class Answering:
    """A model that may answer.

    Attributes:
        contract: what its vectors are made by.
        functions: the contract's on-demand functions.
        name: what the predictor serves it as.
    """

    contract: FeatureContract
    functions: Mapping[str, Function]
    name: str

    @cached_property
    def hash(self) -> str:
        """The contract's hash; to compute it takes as long as to read the store."""
        return self.contract.hash


def models_of(contract: FeatureContract, name: str, use_case: str) -> list[Answering]:
    """Return the main model and, where the contract has one, the fallback.

    Args:
        contract: the main one.
        name: the main model's.
        use_case: the package that on-demand functions must be in.

    Raises:
        SchemaDrift: the source of a function here is not what the model was trained with.
        UseCaseError: a function is outside the use case or does not import.
    """
    contracts = {name: contract} | ({fallback_name(name): contract.fallback} if contract.fallback else {})
    return [Answering(each, load_functions(each, use_case), called) for called, each in contracts.items()]


def fallback_name(name: str) -> str:
    """Return what the fallback of a model is served as."""
    return f"{name}-fallback"

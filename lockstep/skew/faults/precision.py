"""Controls: numbers lose digits between store and model. Harmless, and yet not equal: only a stated tolerance excuses them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lockstep.contract import FeatureContract
from lockstep.online.reader import Reading
from lockstep.skew.fault import Fault, Moment, Vectors
from lockstep.skew.readings import with_numbers

_LARGEST_HALF = float(np.finfo(np.float16).max)


def to_float32(value: float) -> float:
    """Return the nearest float32."""
    return float(np.float32(value))


def to_float16(value: float) -> float:
    """Return the nearest float16, no larger than there are."""
    return float(np.float16(min(max(value, -_LARGEST_HALF), _LARGEST_HALF)))


def to_cents(value: float) -> float:
    """Return it rounded to two digits."""
    return round(value, 2)


@dataclass(frozen=True, kw_only=True)
class Rounded(Fault):
    """Each float that was read loses digits."""

    to: Callable[[float], float]

    def read(self, reading: Reading, moment: Moment) -> Reading:
        """Round."""
        return with_numbers(reading, self.to)


@dataclass(frozen=True, kw_only=True)
class RoundedVectors(Fault):
    """Vectors are made of float32."""

    def vectors(self, contract: FeatureContract, vectors: Vectors, moment: Moment) -> Vectors:
        """Round."""
        return vectors.astype(np.float32).astype(np.float64)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield the ways to lose digits; those of the store only where a stored value is a float."""
    ways = {"float32": to_float32, "float16": to_float16, "rounded": to_cents}
    if any(column.dtype == "float64" for view in contract.views for column in view.columns):
        for name, to in ways.items():
            yield Rounded(
                name=name,
                says="stored values are rounded to two digits" if name == "rounded" else f"stored values as {name}",
                causes=frozenset({"type"}),
                control=True,
                to=to,
            )
    yield RoundedVectors(
        name="float32-vectors",
        says="vectors of float32",
        causes=frozenset({"type", "transform"}),
        control=True,
    )

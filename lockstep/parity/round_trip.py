"""Find the conversion that makes one value of another: what a value suffers on its way through a type, a unit or a default."""

from collections.abc import Callable, Sequence
from math import isclose, isfinite, trunc
from typing import Any

import numpy as np

_DECIMALS = range(7)
_UNITS = (100, 1_000, 1_000_000, 60, 3_600, 86_400)
_ROUNDED = 1e-14


def conversion(expected: Any, served: Any, *, units: bool = True) -> str | None:
    """Return what was done to the expected value so that this one was served, in a few words; None where nothing known was.

    The two differ. A conversion that could be one by chance, as rounding something small to nothing, is not taken for one.

    Args:
        expected: what it should be.
        served: what it is.
        units: whether another unit counts.
    """
    if expected is None or expected != expected:  # noqa: PLR0124 - NaN is unequal to itself
        return "null became zero" if served in (0, "") else None
    if served is None:
        return "zero became null" if expected == 0 else None
    if isinstance(served, str) or isinstance(expected, str):
        return "a number became text, or text a number" if str(served) == str(expected) else None
    if not (_is_number(expected) and _is_number(served) and isfinite(expected) and isfinite(served)):
        return None
    exact = next((told for told, convert in _NUMERIC if _gives(convert, float(expected), float(served))), None)
    return exact or (_unit(float(expected), float(served)) if units else None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _gives(convert: Callable[[float], float], expected: float, served: float) -> bool:
    return served != 0 and convert(expected) == served


def _unit(expected: float, served: float) -> str | None:
    """Return the factor between two units, but for what multiplying rounds: 0.29 * 100 is 28.999999999999996."""
    factors = ((f"multiplied by {n:,}", f"divided by {n:,}", float(n)) for n in _UNITS)
    for more, less, factor in factors:
        if served and isclose(served, expected * factor, rel_tol=_ROUNDED):
            return more
        if served and isclose(served * factor, expected, rel_tol=_ROUNDED):
            return less
    return None


def _rounded(decimals: int) -> Callable[[float], float]:
    return lambda value: round(value, decimals)


def _single(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _half(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float16(value))


def _wrapped(bits: int) -> Callable[[float], float]:
    def wrap(value: float) -> float:
        half = 1 << (bits - 1)
        return float((trunc(value) + half) % (2 * half) - half) if value.is_integer() else value

    return wrap


_NUMERIC: Sequence[tuple[str, Callable[[float], float]]] = (
    ("single precision (float32)", _single),
    ("half precision (float16)", _half),
    *((f"rounded to {decimals} decimals", _rounded(decimals)) for decimals in reversed(_DECIMALS)),
    ("cut to a whole number", lambda value: float(trunc(value))),
    *((f"wrapped at {bits} bits", _wrapped(bits)) for bits in (32, 16, 8)),
)

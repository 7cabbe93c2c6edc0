"""Each conversion is found, of nearly every value; a pair that has nothing to do with each other is none."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lockstep.parity.round_trip import conversion

VALUES = st.floats(-1e9, 1e9, allow_subnormal=False)
POSITIVE = st.floats(1e-3, 1e9)
UNITS = (100, 1_000, 1_000_000, 60, 3_600, 86_400)


def half(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float16(value))


@pytest.mark.parametrize(("served", "told"), [(0, "null became zero"), (0.0, "null became zero"), (3, None)])
def test_a_null_becomes_zero_by_a_default(served: float, told: str | None) -> None:
    assert conversion(None, served) == told
    assert conversion(float("nan"), served) == told


@pytest.mark.parametrize(
    ("expected", "served", "told"),
    [
        (None, "", "null became zero"),
        (0, None, "zero became null"),
        (0.0, None, "zero became null"),
        (3, None, None),
        ("x", None, None),
        (7, "7", "a number became text, or text a number"),
        ("7", 7, "a number became text, or text a number"),
        ("7", "8", None),
        (True, 0.0, None),
        (2.5, 0.0, None),
        (0.25, 0.0, None),
        (0.29, 29.0, "multiplied by 100"),
        (0.57, 0.0095, "divided by 60"),
        (2.5, 2.0, "rounded to 0 decimals"),
        (2.7, 2.0, "cut to a whole number"),
        (-2.7, -2.0, "cut to a whole number"),
        (2**40 + 5, 5, "wrapped at 32 bits"),
        (2**31, -(2**31), "wrapped at 32 bits"),
        (float("inf"), 5.0, None),
        (5.0, float("inf"), None),
        (5.0, float("nan"), None),
        (1e39, float("inf"), None),
    ],
)
def test_what_is_known_of_single_values(expected: object, served: object, told: str | None) -> None:
    assert conversion(expected, served) == told


def test_a_row_that_the_lake_never_held_is_no_conversion_of_nothing() -> None:
    assert conversion(None, {"nb_tx_7d": 3}) is None


CONVERSIONS: list[tuple[str, Callable[[float], float]]] = [
    ("single precision (float32)", lambda value: float(np.float32(value))),
    *((f"multiplied by {unit:,}", lambda value, unit=unit: value * unit) for unit in UNITS),
    *((f"divided by {unit:,}", lambda value, unit=unit: value / unit) for unit in UNITS),
]


@pytest.mark.parametrize(("told", "convert"), CONVERSIONS, ids=[told for told, _ in CONVERSIONS])
@given(value=POSITIVE)
def test_a_conversion_is_found_of_any_value_that_it_changes(
    told: str, convert: Callable[[float], float], value: float
) -> None:
    served = convert(value)
    assume(served != value)
    assert conversion(value, served) is not None
    if not told.startswith("single"):  # what is exact in single precision, too, is said of the first of the two
        assert conversion(value, served) in {told, *_also(value, served)}
    else:
        assert conversion(value, served) == told


def _also(value: float, served: float) -> set[str]:
    """The other words that are as true of this pair."""
    found = {f"rounded to {n} decimals" for n in range(7) if round(value, n) == served}
    found |= {"single precision (float32)"} if float(np.float32(value)) == served else set()
    return found | ({"half precision (float16)"} if half(value) == served else set())


@given(st.floats(1e-2, 6e4))
def test_half_precision_is_found(value: float) -> None:
    served = float(np.float16(value))
    assume(served not in {value, float(np.float32(value))})
    assert conversion(value, served) == "half precision (float16)"


@given(st.floats(1, 1e6), st.integers(0, 6))
def test_rounding_is_found_with_the_most_decimals_that_make_it(value: float, decimals: int) -> None:
    served = round(value, decimals)
    assume(served not in {value, float(np.float32(value)), half(value)})
    told = conversion(value, served)
    assert told is not None
    assert told.startswith("rounded to ")
    kept = int(told.split()[2])
    assert round(value, kept) == served
    assert kept >= decimals


@given(st.integers(2**31, 2**53))
def test_a_whole_number_that_is_too_long_is_wrapped(value: int) -> None:
    served = (value + 2**31) % 2**32 - 2**31
    assume(served not in {value, 0, -value})
    told = conversion(value, served)
    assert told == "wrapped at 32 bits"


@given(VALUES, VALUES)
def test_two_values_that_have_nothing_to_do_with_each_other_are_no_conversion(expected: float, served: float) -> None:
    """Hypothesis likes round numbers: those that are a conversion by chance are few kinds, and are checked to be one."""
    assume(expected != served)
    told = conversion(expected, served)
    if told is not None:
        assert served != 0
        assert any(math.isclose(served, made, rel_tol=1e-6, abs_tol=1) for made in _nearest(expected)), told


def _nearest(value: float) -> list[float]:
    return [
        value,
        -value,
        *(value * unit for unit in UNITS),
        *(value / unit for unit in UNITS),
        half(value),
        (math.trunc(value) + 2**31) % 2**32 - 2**31,
    ]


def measured_rate(draw: Callable[[random.Random], tuple[float, float]], pairs: int = 5_000) -> float:
    chance = random.Random(11)
    drawn = [draw(chance) for _ in range(pairs)]
    unequal = [(one, other) for one, other in drawn if one != other]
    return sum(conversion(one, other) is not None for one, other in unequal) / len(unequal)


def test_of_unrelated_fractions_none_is_a_conversion_by_chance() -> None:
    assert measured_rate(lambda chance: (chance.uniform(0, 100), chance.uniform(0, 100))) == 0.0
    assert measured_rate(lambda chance: (chance.uniform(-1, 1), chance.uniform(-1, 1))) == 0.0


def test_of_a_feature_that_moves_a_little_from_tick_to_tick_none_is_a_conversion_by_chance() -> None:
    def moved(chance: random.Random) -> tuple[float, float]:
        total = chance.uniform(10, 1_000)
        return total, total + chance.uniform(-5, 5)

    assert measured_rate(moved) == 0.0


def test_of_unrelated_counts_hardly_any_is_a_conversion_by_chance() -> None:
    """Small whole numbers are sixty times each other now and then: 1 and 60, 2 and 120."""

    def counts(chance: random.Random) -> tuple[float, float]:
        return chance.randrange(200), chance.randrange(200)

    assert 0 < measured_rate(counts) < 0.002


def test_of_unrelated_amounts_in_cents_nearly_none_is_a_conversion_by_chance() -> None:
    def amounts(chance: random.Random) -> tuple[float, float]:
        return round(chance.uniform(0, 300), 2), round(chance.uniform(0, 300), 2)

    assert measured_rate(amounts) < 0.001

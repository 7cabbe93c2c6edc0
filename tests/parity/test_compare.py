"""When two values are one, and in which ways a row is held against the lake, its own parts, the model and training."""

import numpy as np
import pytest
from parity_case import KEYS, facts_of, read_of, served, with_feature

from lockstep.parity.compare import What, compare, equal
from lockstep.parity.sample import ServedView, same

NAN = float("nan")


@pytest.mark.parametrize(
    ("one", "other", "tolerance", "is_equal"),
    [
        (NAN, NAN, None, True),
        (NAN, NAN, 0.5, True),
        (NAN, 0.0, None, False),
        (NAN, 0.0, 1e9, False),
        (0.1 + 0.2, 0.3, None, False),
        (0.1 + 0.2, 0.3, 1e-9, True),
        (1.0, 1.5, 0.5, True),
        (0.0, -0.0, None, True),
    ],
)
def test_equal_means_equal_unless_a_tolerance_is_stated(
    one: float, other: float, tolerance: float | None, is_equal: bool
) -> None:
    assert equal(np.array([one]), np.array([other]), tolerance).tolist() == [is_equal]
    assert equal(np.array([other]), np.array([one]), tolerance).tolist() == [is_equal]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (None, None, True),
        (None, 0, False),
        (NAN, NAN, True),
        (NAN, None, False),
        (0.0, -0.0, True),
        ("", None, False),
        ("a", "a", True),
        (1, 1.0, True),
    ],
)
def test_stored_values_are_the_same_where_they_are_equal_or_both_nothing(
    one: object, other: object, is_same: bool
) -> None:
    assert same(one, other) is is_same
    assert same(other, one) is is_same


def test_a_column_that_was_not_logged_holds_nothing() -> None:
    read = ServedView("present", 1, 2, {"a": None})
    assert read.holds("a", None)
    assert not read.holds("b", None)


def test_each_difference_of_a_row_is_noted_by_the_way_in_which_it_was_seen() -> None:
    plain = served(1)
    rows = [
        plain,
        served(2, read={"risk": read_of(None)}),
        with_feature(served(3), "share", "of_total", 9.0),
        served(4, score=0.9),
    ]
    found = {n: {d.what for d in ds} for n, ds in compare(facts_of(rows)).items()}
    assert found == {
        1: {What.NOT_NEWEST, What.TRAINING},
        2: {What.VECTOR, What.TRAINING},
        3: {What.SCORE},
    }
    assert {what.kind for ds in found.values() for what in ds} == {"consistency", "training", "prediction"}


def test_there_is_one_difference_for_each_column_that_is_not_the_lakes() -> None:
    rows = [served(n) for n in KEYS]
    views = rows[0].views["risk"]
    rows[0] = served(
        1,
        read={
            "risk": ServedView(
                "present", views.event_us, views.created_us, {**views.values, "calls": -1, "risk_1d": -2.5}
            )
        },
    )
    found = compare(facts_of(rows))
    assert list(found) == [0]
    told = [(d.what, d.feature, d.served, d.expected) for d in found[0] if d.what is not What.TRAINING]
    assert told == [
        (What.VALUES, "calls", -1, views.values["calls"]),
        (What.VALUES, "risk_1d", -2.5, views.values["risk_1d"]),
    ]

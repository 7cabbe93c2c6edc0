"""How long a request may take: what a header may say, and how the time is split."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import BadInput
from lockstep.serving.budget import BUDGET_HEADER, MOST_MS, Budget, budget_of

USUAL = timedelta(milliseconds=100)


def test_who_does_not_ask_has_the_usual_time_the_store_half_of_it() -> None:
    budget = budget_of({"content-type": "application/json"}, USUAL, 7.0)

    assert budget == Budget(7.0, 0.1, usual=True)
    assert (budget.read_end, budget.end) == (7.05, 7.1)


@pytest.mark.parametrize(
    ("asked", "seconds", "usual"),
    [
        ("1", 0.001, False),
        ("99", 0.099, False),
        ("100", 0.1, True),
        ("0250", 0.25, True),
        (str(MOST_MS), 60.0, True),
    ],
)
def test_a_header_asks_for_more_or_less(asked: str, seconds: float, usual: bool) -> None:
    assert budget_of({BUDGET_HEADER: asked}, USUAL, 7.0) == Budget(7.0, seconds, usual)


@pytest.mark.parametrize(
    "asked",
    ["", "0", "-5", "+5", " 5", "5 ", "5.0", "1e3", "1_0", "0x9", "\u0665", "²", "60001", "000100", "9" * 5000],
)
def test_a_header_that_is_no_such_number_is_refused(asked: str) -> None:
    with pytest.raises(BadInput, match="x-lockstep-budget-ms is no whole number of milliseconds from 1 to 60000"):
        budget_of({BUDGET_HEADER: asked}, USUAL, 7.0)


@given(st.text(st.characters(max_codepoint=255), max_size=7))
def test_whatever_a_header_holds_it_is_a_time_or_it_is_refused(asked: str) -> None:
    try:
        budget = budget_of({BUDGET_HEADER: asked}, USUAL, 0.0)
    except BadInput:
        return
    assert 0.001 <= budget.seconds <= 60
    assert budget.read_end * 2 == budget.end == int(asked) / 1000

"""How long a request may take: what a header may say, and how the time is split."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import BadInput
from lockstep.serving.budget import BUDGET_HEADER, MOST_MS, Budget, Wait, budget_of

USUAL = timedelta(milliseconds=100)


def test_who_does_not_ask_has_the_usual_time_the_store_half_of_it() -> None:
    budget = budget_of({"content-type": "application/json"}, USUAL, 7.0)

    assert budget == Budget(7.0, 0.1, usual=0.1)
    assert budget.read(7.0) == Wait(7.05, fair=True)
    assert budget.predict(7.05) == Wait(7.1, fair=True)


@pytest.mark.parametrize(
    ("asked", "seconds"), [("1", 0.001), ("99", 0.099), ("100", 0.1), ("0250", 0.25), (str(MOST_MS), 20.0)]
)
def test_a_header_asks_for_more_or_less(asked: str, seconds: float) -> None:
    assert budget_of({BUDGET_HEADER: asked}, USUAL, 7.0) == Budget(7.0, seconds, 0.1)


def test_what_is_left_when_the_body_is_there_is_split_and_what_is_less_than_usual_speaks_against_nobody() -> None:
    budget = Budget(7.0, 0.1, usual=0.1)

    late = budget.read(7.06)

    assert (late.end, late.fair) == (pytest.approx(7.08), False)
    assert budget.predict(7.09).fair is False
    assert Budget(7.0, 0.05, usual=0.1).read(7.0).fair is False
    assert Budget(7.0, 0.3, usual=0.1).read(7.1).fair is True


def test_a_time_out_that_is_noticed_late_speaks_against_nobody() -> None:
    wait = Wait(7.05, fair=True)

    assert wait.counts(7.051)
    assert not wait.counts(7.08)
    assert not Wait(7.05, fair=False).counts(7.051)


@pytest.mark.parametrize(
    "asked",
    ["", "0", "-5", "+5", " 5", "5 ", "5.0", "1e3", "1_0", "0x9", "\u0665", "²", "20001", "000100", "9" * 5000],
)
def test_a_header_that_is_no_such_number_is_refused(asked: str) -> None:
    with pytest.raises(BadInput, match="x-lockstep-budget-ms is no whole number of milliseconds from 1 to 20000"):
        budget_of({BUDGET_HEADER: asked}, USUAL, 7.0)


@given(st.text(st.characters(max_codepoint=255), max_size=7))
def test_whatever_a_header_holds_it_is_a_time_or_it_is_refused(asked: str) -> None:
    try:
        budget = budget_of({BUDGET_HEADER: asked}, USUAL, 0.0)
    except BadInput:
        return
    assert 0.001 <= budget.seconds <= 20
    assert budget.read(0.0).end * 2 == budget.end == int(asked) / 1000

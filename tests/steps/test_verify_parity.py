"""Which window the step verifies."""

from datetime import timedelta

import pytest

from lockstep.clock import parse_time
from lockstep.errors import BadInput
from steps.verify_parity import MOST_HOURS, VerifyParityInput, window_of

UNTIL = "2018-05-01T00:00:00Z"


def test_the_window_begins_where_it_is_told_or_so_many_hours_before_its_end() -> None:
    until = parse_time(UNTIL)
    given = VerifyParityInput(model="champion", shadow=True, until=UNTIL, hours=6)
    assert window_of(given) == (until - timedelta(hours=6), until)
    since = given.model_copy(update={"since": "2018-04-01T00:00:00Z", "hours": 0})
    assert window_of(since) == (parse_time("2018-04-01T00:00:00Z"), until)


@pytest.mark.parametrize("hours", [-1, 0, MOST_HOURS + 1, 10**9, 10**30])
def test_hours_that_make_no_window_are_bad_input(hours: int) -> None:
    with pytest.raises(BadInput, match=f"hours is {hours}, it may be 1 to {MOST_HOURS}") as bad:
        window_of(VerifyParityInput(model="champion", shadow=True, until=UNTIL, hours=hours))
    assert bad.value.exit_code == 2

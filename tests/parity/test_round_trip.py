"""Of what was served in place of nothing, only a zero is a null on its way through a default."""

import pytest

from lockstep.parity.round_trip import conversion


@pytest.mark.parametrize(("served", "told"), [(0, "null became zero"), (0.0, "null became zero"), (3, None)])
def test_a_null_becomes_zero_by_a_default(served: float, told: str | None) -> None:
    assert conversion(None, served) == told


def test_a_row_that_the_lake_never_held_is_no_conversion_of_nothing() -> None:
    assert conversion(None, {"nb_tx_7d": 3}) is None

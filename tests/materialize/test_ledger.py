"""The ledger's promise: rows of one kind tile, whoever plans them."""

from datetime import timedelta

import pytest

from lockstep.clock import parse_time
from lockstep.errors import Terminal
from lockstep.materialize.ledger import Ledger, Mode, State

T = parse_time("2018-06-01T12:00:00Z")
HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(settings) -> Ledger:
    return Ledger.open(settings, "test")


def test_a_second_planner_is_handed_the_first_ones_row(settings, ledger) -> None:
    mine = ledger.plan_compute("spend", Mode.LIVE, T, T + HOUR, {"payments": 11}, T)
    theirs = Ledger.open(settings, "test").plan_compute(
        "spend", Mode.LIVE, T, T + 2 * HOUR, {"payments": 99}, T + HOUR
    )
    assert theirs == mine
    assert theirs.sources == {"payments": 11}


def test_views_and_projects_do_not_get_in_each_others_way(settings, ledger) -> None:
    first = ledger.plan_compute("spend", Mode.LIVE, T, T + HOUR, {}, T)
    other_view = ledger.plan_compute("risk", Mode.LIVE, T, T + HOUR, {}, T)
    other_project = Ledger.open(settings, "else").plan_compute("spend", Mode.LIVE, T, T + HOUR, {}, T)
    assert len({first.id, other_view.id, other_project.id}) == 3
    assert [r.id for r in ledger.computes("spend")] == [first.id]


def test_an_interval_moves_through_its_states(ledger) -> None:
    row = ledger.plan_materialize("spend", 0, 4, snapshot_id=77, watermark=T, planned_at=T)
    assert row.state is State.PLANNED
    ledger.start_writing(row, "run", 0)
    assert not ledger.verify(row, 8, 2, "abc"), "it was planned for no place when it was read"
    row = ledger.materialization(row.id)
    assert ledger.verify(row, 8, 2, "abc")
    assert ledger.commit_materialize(row, T + HOUR)
    assert not ledger.start_writing(row, "run", 0)
    done = ledger.materialization(row.id)
    assert (done.state, done.rows_accepted, done.rows_rejected, done.committed_at) == (State.COMMITTED, 8, 2, T + HOUR)
    assert (done.snapshot_id, done.watermark) == (77, T)


def test_a_range_that_does_not_go_forward_is_refused(ledger) -> None:
    with pytest.raises(Terminal, match="compute_goes_forward"):
        ledger.plan_compute("spend", Mode.LIVE, T, T, {}, T)


def test_an_interval_nobody_planned_is_named(ledger) -> None:
    with pytest.raises(Terminal, match="no interval 12"):
        ledger.materialization(12)


def test_the_first_incarnation_stays(settings, ledger) -> None:
    assert ledger.incarnation() is None
    ledger.adopt_incarnation("aa", T)
    ledger.adopt_incarnation("bb", T)
    assert Ledger.open(settings, "test").incarnation() == "aa"


def test_a_store_is_followed_by_one_other_and_none_is_forgotten(ledger) -> None:
    ledger.adopt_incarnation("aa", T)
    ledger.adopt_incarnation("bb", T, follows="aa")
    ledger.adopt_incarnation("cc", T, follows="aa")
    ledger.adopt_incarnation("aa", T, follows="bb")
    assert ledger.incarnations() == ["aa", "bb"]
    assert ledger.incarnation() == "bb"

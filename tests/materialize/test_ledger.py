"""The ledger's promise: rows of one kind tile, whoever plans them."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from threading import Barrier

import pytest

from lockstep.clock import parse_time
from lockstep.errors import Terminal, Transient
from lockstep.materialize.database import Database
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode, Reach, Scope, State
from lockstep.settings import Settings

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


def reach(sequence: int, table: str = "a table") -> Reach:
    return Reach(table, sequence, snapshot_id=70 + sequence, watermark=T)


def test_an_interval_moves_through_its_states(ledger) -> None:
    row = ledger.plan_materialize("spend", Mode.INTERVAL, 0, reach(4), T, newest=0)
    assert row.state is State.PLANNED
    written = {"writes_from": 0, "writes_after_id": None, "scope": Scope.WHOLE}
    writing = ledger.start_writing(row, "run", **written)
    assert (writing.state, writing.scope) == (State.WRITING, Scope.WHOLE)
    assert not ledger.verify(row, 8, 2, "abc"), "it was planned for no place when it was read"
    assert ledger.verify(writing, 8, 2, "abc")
    assert ledger.commit_materialize(writing, T + HOUR)
    assert ledger.start_writing(row, "run", **written) is None
    done = ledger.materialization(row.id)
    assert (done.state, done.rows_accepted, done.rows_rejected, done.committed_at) == (State.COMMITTED, 8, 2, T + HOUR)
    assert (done.snapshot_id, done.watermark) == (74, T)


def test_a_row_that_somebody_planned_anew_is_not_written_as_it_was(ledger) -> None:
    row = ledger.plan_materialize("spend", Mode.INTERVAL, 3, reach(4), T, newest=0)
    theirs = ledger.start_writing(row, "run", writes_from=1, writes_after_id=71, scope=Scope.CHANGED)
    assert ledger.start_writing(row, "run", writes_from=3, writes_after_id=73, scope=Scope.ADDED) is None
    assert ledger.materialization(row.id) == theirs


def test_nothing_is_planned_by_whoever_has_not_seen_the_newest_row(ledger) -> None:
    row = ledger.plan_materialize("spend", Mode.INTERVAL, 0, reach(4), T, newest=0)
    assert ledger.plan_materialize("spend", Mode.INTERVAL, 0, reach(4), T, newest=0) is None
    assert ledger.plan_materialize("spend", Mode.REPAIR, 0, reach(4), T, newest=0) is None
    with pytest.raises(Terminal, match=r"UNIQUE|one_at_a_time"):
        ledger.plan_materialize("spend", Mode.REPAIR, 0, reach(4), T, newest=row.id)
    another = ledger.plan_materialize("spend", Mode.INTERVAL, 0, reach(2, "another table"), T, newest=row.id)
    assert ledger.materializations("spend") == [row, another]
    assert ledger.materializations("spend", "another table") == [another]


def test_a_range_that_does_not_go_forward_is_refused(ledger) -> None:
    with pytest.raises(Terminal, match="compute_goes_forward"):
        ledger.plan_compute("spend", Mode.LIVE, T, T, {}, T)


@pytest.mark.parametrize(("start", "end"), [(-9, 1), (0.5, 2), (0.5, 0.75)], ids=["over it", "its end", "inside"])
def test_a_range_over_ticks_that_somebody_claimed_from_another_start_is_refused(ledger, start, end) -> None:
    ledger.plan_compute("spend", Mode.LIVE, T, T + HOUR, {}, T)
    with pytest.raises(Transient, match="another run has claimed the ticks after 2018-06-01T12:00:00"):
        ledger.plan_compute("spend", Mode.BOOTSTRAP, T + start * HOUR, T + end * HOUR, {}, T)
    assert len(ledger.computes("spend")) == 1
    before = ledger.plan_compute("spend", Mode.BOOTSTRAP, T - 9 * HOUR, T, {}, T)
    assert (before.tick_from, before.tick_to) == (T - 9 * HOUR, T)


def test_of_ranges_planned_at_once_from_different_starts_no_two_overlap(settings) -> None:
    """Threads, each with connections of its own."""
    ledgers = [Ledger.open(settings, "test") for _ in range(8)]
    for view in ("a", "b", "c"):
        together = Barrier(8)

        def plan(number: int, view: str = view, together: Barrier = together) -> bool:
            together.wait()
            try:
                ledgers[number].plan_compute(view, Mode.LIVE, T - number * HOUR, T + HOUR, {}, T)
            except Transient:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            claimed = list(threads.map(plan, range(8)))
        rows = ledgers[0].computes(view)
        assert claimed.count(True) == len(rows) == 1
        assert all(earlier.tick_to <= later.tick_from for earlier, later in pairwise(rows))


_PLANNER = """
import sys
from lockstep.clock import from_micros
from lockstep.errors import Transient
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode
from lockstep.settings import Settings
ledger = Ledger.open(Settings(home=sys.argv[1], ledger_url=sys.argv[4]), "test")
print("ready", flush=True)
sys.stdin.readline()
for n in range(20):
    try:
        start = from_micros(int(sys.argv[2]) * 1_000_000)
        ledger.plan_compute(f"view_{n}", Mode(sys.argv[3]), start, from_micros(3_600_000_000), {}, from_micros(0))
        print("claimed", flush=True)
    except Transient:
        print("refused", flush=True)
"""


def test_of_two_processes_that_plan_live_and_bootstrap_at_once_one_is_refused(settings, ledger) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _PLANNER, str(settings.home), start, mode, settings.ledger_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for start, mode in (("0", "live"), ("-36000", "bootstrap"))
    ]
    for run in runs:
        assert run.stdout
        assert run.stdout.readline() == "ready\n"
    said = [run.communicate("go\n", timeout=60)[0].split() for run in runs]
    assert [sorted(pair) for pair in zip(*said, strict=True)] == [["claimed", "refused"]] * 20
    assert [len(ledger.computes(f"view_{n}")) for n in range(20)] == [1] * 20


def test_ticks_are_corrected_by_one_row_at_a_time_that_is_newer_than_all(ledger) -> None:
    live = ledger.plan_compute("spend", Mode.LIVE, T, T + HOUR, {"payments": 1}, T + HOUR)
    first = ledger.plan_correct("spend", T, T + HOUR, {"payments": 1}, T)
    assert first.planned_at > live.planned_at, "also where the clock of this machine is behind"
    assert ledger.plan_correct("spend", T, T + HOUR / 2, {"payments": 2}, T + HOUR) == first
    ledger.commit_compute(first, 7, 0, T + HOUR)
    second = ledger.plan_correct("spend", T, T + HOUR, {"payments": 1}, T)
    assert second.id != first.id
    assert second.planned_at > first.planned_at


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


def test_tables_are_made_by_whoever_is_first(settings) -> None:
    for number in range(10):
        fresh = settings.model_copy(update={"ledger_url": f"sqlite:///{settings.home}/{number}.db"})
        together = Barrier(8)

        def make(_: int, fresh: Settings = fresh, together: Barrier = together) -> None:
            together.wait()
            Database.open(fresh)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(make, range(8)))
        assert Ledger.open(fresh, "test").computes("spend") == []


def test_the_digest_of_a_view_is_of_what_was_computed_and_brought_online_by_then(settings, ledger) -> None:
    def commit(view: str, ticks: int, sequence: int, at: timedelta) -> None:
        computed = ledger.plan_compute(view, Mode.LIVE, T + ticks * HOUR, T + (ticks + 1) * HOUR, {"payments": 11}, T)
        ledger.commit_compute(computed, 70 + sequence, 8, T + at)
        newest = ledger.newest_materialization(view)
        planned = ledger.plan_materialize(view, Mode.INTERVAL, sequence - 1, reach(sequence), T + at, newest=newest)
        writing = ledger.start_writing(planned, "run", writes_from=0, writes_after_id=None, scope=Scope.WHOLE)
        ledger.verify(writing, 8, 0, "abc")
        ledger.commit_materialize(writing, T + at)

    empty = ledger.digest("spend", T + HOUR)
    commit("spend", 0, 1, HOUR)
    one = ledger.digest("spend", T + HOUR)
    assert one != empty
    assert ledger.digest("spend", T + HOUR - timedelta(microseconds=1)) == empty
    assert ledger.digest("risk", T + HOUR) == empty
    commit("spend", 1, 2, 2 * HOUR)
    commit("risk", 0, 1, HOUR)
    assert ledger.digest("spend", T + HOUR) == one, "what came later, or is of another view, does not change it"
    assert ledger.digest("spend", T + 2 * HOUR) != one
    ledger.plan_compute("spend", Mode.LIVE, T + 2 * HOUR, T + 3 * HOUR, {"payments": 12}, T)
    assert ledger.digest("spend", T + HOUR) == one, "nor does what is only planned"
    ledger.move_sources("payments", {99}, 99)
    assert ledger.digest("spend", T + HOUR) == one, "nor does a source's snapshot that has expired"

"""Computing a view into its table: live, bootstrap, restarts."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from lockstep.clock import parse_time
from lockstep.errors import BadInput, Transient, UseCaseError
from lockstep.lake import Lake
from lockstep.lake.engine import connect
from lockstep.lake.snapshots import COMPUTE_ID
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode, State
from lockstep.settings import Settings
from lockstep.views import Entity, Source, count, days, execution, hours, soft, total, total_of_squares, windowed_view
from lockstep.views.compute import bootstrap, compute
from tests.interrupted import interrupted

NOON = parse_time("2018-06-01T12:00:00Z")
PAYMENTS = pa.schema(
    [
        pa.field("at", pa.timestamp("us", tz="UTC")),
        pa.field("card", pa.int64(), nullable=False),
        pa.field("cents", pa.int64()),
        pa.field("seen", pa.timestamp("us", tz="UTC")),
    ]
)
SPEND = windowed_view(
    name="spend",
    entity=Entity("card", "card", "int64", "o"),
    source=Source("payments", "at", "seen", "o"),
    measures=[count("nb"), total("cents")],
    windows=[days(1), days(7)],
    every=hours(1),
    ttl=days(3),
    freshness=soft(hours(3)),
    owner="o",
)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    opened = Lake.open(settings, "test")
    opened.ensure_table("payments", PAYMENTS, "at")
    return opened


@pytest.fixture
def ledger(settings: Settings) -> Ledger:
    return Ledger.open(settings, "test")


def pay(lake: Lake, *rows: tuple[str, int, int, str]) -> None:
    columns = zip(*rows, strict=True)
    names = ("at", "card", "cents", "seen")
    values = {
        n: [parse_time(v) if n in {"at", "seen"} else v for v in vs] for n, vs in zip(names, columns, strict=True)
    }
    lake.append("payments", pa.table(values).cast(PAYMENTS))


def answers(settings: Settings, lake: Lake, card: int, at: datetime) -> tuple[int, int] | None:
    """What the table answers for a card at a time."""
    with connect(settings) as connection:
        lake.register(connection, "spend", "spend", columns=SPEND.schema.names)
        return connection.execute(
            "SELECT nb_1d, cents_1d FROM spend WHERE card = ? AND event_timestamp <= ? "
            "ORDER BY event_timestamp DESC, created_timestamp DESC LIMIT 1",
            [card, at],
        ).fetchone()


def test_a_live_tick_counts_what_is_known_and_names_its_watermark(settings, lake, ledger) -> None:
    pay(
        lake,
        ("2018-06-01T10:30:00Z", 1, 500, "2018-06-01T10:30:01Z"),
        ("2018-06-01T12:00:00Z", 1, 70, "2018-06-01T12:00:00Z"),
    )
    settings.clock.advance_to(NOON + timedelta(minutes=5))
    done = compute(settings, lake, ledger, SPEND, NOON + timedelta(minutes=5))
    assert (done.tick, done.rows) == (NOON, 1)
    assert answers(settings, lake, 1, NOON) == (1, 500), "the payment exactly at the tick belongs to the next one"
    assert lake.current("spend").tick == int(NOON.timestamp()) * 1_000_000


def test_computing_again_appends_nothing(settings, lake, ledger) -> None:
    pay(lake, ("2018-06-01T10:30:00Z", 1, 500, "2018-06-01T10:30:01Z"))
    settings.clock.advance_to(NOON)
    first = compute(settings, lake, ledger, SPEND, NOON)
    again = compute(settings, lake, ledger, SPEND, NOON)
    assert (again.rows, again.snapshot_id) == (0, first.snapshot_id)
    assert len(lake.snapshots("spend")) == 1


def test_a_tick_without_changes_commits_an_empty_snapshot_with_its_watermark(settings, lake, ledger) -> None:
    pay(lake, ("2018-06-01T10:30:00Z", 1, 500, "2018-06-01T10:30:01Z"))
    settings.clock.advance_to(NOON + timedelta(hours=1))
    compute(settings, lake, ledger, SPEND, NOON)
    quiet = [compute(settings, lake, ledger, SPEND, NOON + timedelta(hours=1))]
    assert [c.tick for c in quiet] == [NOON + timedelta(hours=1)]
    assert len(lake.snapshots("spend")) == 2


def test_a_late_row_enters_the_next_tick_and_rewrites_none(settings, lake, ledger) -> None:
    pay(lake, ("2018-06-01T10:30:00Z", 1, 500, "2018-06-01T10:30:01Z"))
    settings.clock.advance_to(NOON)
    compute(settings, lake, ledger, SPEND, NOON)
    pay(lake, ("2018-06-01T09:00:00Z", 1, 30, "2018-06-01T12:30:00Z"))
    settings.clock.advance_to(NOON + timedelta(hours=1))
    compute(settings, lake, ledger, SPEND, NOON + timedelta(hours=1))
    assert answers(settings, lake, 1, NOON) == (1, 500)
    assert answers(settings, lake, 1, NOON + timedelta(hours=1)) == (2, 530)


def test_a_crash_between_append_and_ledger_does_not_append_twice(settings, lake, ledger, monkeypatch) -> None:
    pay(lake, ("2018-06-01T10:30:00Z", 1, 500, "2018-06-01T10:30:01Z"))
    settings.clock.advance_to(NOON)

    interrupted(monkeypatch, Ledger, "commit_compute", lambda: compute(settings, lake, ledger, SPEND, NOON))
    assert ledger.computes("spend")[0].state is State.PLANNED
    done = compute(settings, lake, ledger, SPEND, NOON)
    row = ledger.computes("spend")[0]
    assert (row.state, row.snapshot_id, row.rows) == (State.COMMITTED, done.snapshot_id, 1)
    assert [s.properties[COMPUTE_ID] for s in lake.snapshots("spend")] == ["1"]


def test_a_planned_range_is_finished_with_the_snapshots_it_was_planned_with(
    settings, lake, ledger, monkeypatch
) -> None:
    pay(lake, ("2018-06-01T10:30:00Z", 1, 500, "2018-06-01T10:30:01Z"))
    settings.clock.advance_to(NOON)

    interrupted(monkeypatch, Lake, "append_parts", lambda: compute(settings, lake, ledger, SPEND, NOON))
    pay(lake, ("2018-06-01T10:40:00Z", 1, 9, "2018-06-01T12:10:00Z"))
    compute(settings, lake, ledger, SPEND, NOON)
    assert answers(settings, lake, 1, NOON) == (1, 500)


def test_of_two_runs_at_once_one_appends_and_the_other_finds_it(settings, lake, ledger, monkeypatch) -> None:
    pay(lake, ("2018-06-01T10:30:00Z", 1, 500, "2018-06-01T10:30:01Z"))
    settings.clock.advance_to(NOON)
    plain = Lake.append_parts

    def overtaken(self: Lake, *given: object, **options: object) -> object:
        monkeypatch.setattr(Lake, "append_parts", plain)
        compute(settings, lake, ledger, SPEND, NOON)
        return plain(self, *given, **options)

    monkeypatch.setattr(Lake, "append_parts", overtaken)
    with pytest.raises(Transient, match="another writer committed first"):
        compute(settings, lake, ledger, SPEND, NOON)
    assert compute(settings, lake, ledger, SPEND, NOON).rows == 0
    assert len(lake.snapshots("spend")) == 1


def test_bootstrap_reads_only_what_each_tick_could_have_known(settings, lake, ledger) -> None:
    pay(
        lake,
        ("2018-05-31T10:30:00Z", 1, 500, "2018-05-31T10:30:01Z"),
        ("2018-05-31T10:40:00Z", 1, 30, "2018-05-31T14:30:00Z"),
    )
    settings.clock.advance_to(NOON + timedelta(minutes=5))
    bootstrap(settings, lake, ledger, SPEND, parse_time("2018-05-31T00:00:00Z"), NOON)
    assert answers(settings, lake, 1, parse_time("2018-05-31T14:00:00Z")) == (1, 500)
    assert answers(settings, lake, 1, parse_time("2018-05-31T15:00:00Z")) == (2, 530)
    row = ledger.computes("spend")[0]
    assert (row.mode, row.tick_to) == (Mode.BOOTSTRAP, NOON)


def test_live_ticks_follow_where_the_bootstrap_ended(settings, lake, ledger) -> None:
    pay(lake, ("2018-05-31T10:30:00Z", 1, 500, "2018-05-31T10:30:01Z"))
    settings.clock.advance_to(NOON + timedelta(hours=3))
    bootstrap(settings, lake, ledger, SPEND, parse_time("2018-05-31T00:00:00Z"), NOON)
    compute(settings, lake, ledger, SPEND, NOON + timedelta(hours=3))
    assert [(r.mode, r.tick_from, r.tick_to) for r in ledger.computes("spend")] == [
        (Mode.BOOTSTRAP, parse_time("2018-05-31T00:00:00Z"), NOON),
        (Mode.LIVE, NOON, NOON + timedelta(hours=3)),
    ]


def test_a_tick_whose_lag_has_not_passed_is_left_to_live(settings, lake, ledger) -> None:
    pay(lake, ("2018-05-31T10:30:00Z", 1, 500, "2018-05-31T10:30:01Z"))
    settings.clock.advance_to(NOON)
    done = bootstrap(settings, lake, ledger, SPEND, parse_time("2018-05-31T00:00:00Z"), NOON)
    assert done.tick == NOON - timedelta(hours=1)


def test_history_before_the_computed_one_is_bootstrapped_and_changes_nothing_after_it(settings, lake, ledger) -> None:
    """Card 1 is quiet where the computed range begins, card 2 is dead by then."""
    pay(
        lake,
        ("2018-05-01T10:30:00Z", 2, 70, "2018-05-01T10:30:01Z"),
        ("2018-05-25T10:30:00Z", 1, 500, "2018-05-25T10:30:01Z"),
        ("2018-05-31T10:30:00Z", 1, 30, "2018-05-31T10:30:01Z"),
    )
    settings.clock.advance_to(NOON + timedelta(hours=1))
    begin = parse_time("2018-05-30T00:00:00Z")
    compute(settings, lake, ledger, SPEND, NOON)
    bootstrap(settings, lake, ledger, SPEND, begin, NOON)
    at_the_seams = [begin + n * timedelta(hours=1) for n in (1, 2, 12, 35)] + [NOON]
    before = [answers(settings, lake, card, at) for card in (1, 2) for at in at_the_seams]
    done = bootstrap(settings, lake, ledger, SPEND, parse_time("2018-04-28T00:00:00Z"), NOON)
    assert done.rows > 0
    assert done.tick == NOON
    settings.clock.advance_to(NOON + timedelta(hours=2))
    assert [answers(settings, lake, 1, at) for at in at_the_seams] == before[:5]
    assert answers(settings, lake, 2, begin) == (0, 0), "what is left of a dead card is older than its ttl"
    assert answers(settings, lake, 1, parse_time("2018-05-25T11:00:00Z")) == (1, 500)
    assert {s.tick for s in lake.snapshots("spend")} == {int(NOON.timestamp()) * 1_000_000}
    assert [r.mode for r in ledger.computes("spend")] == [Mode.BOOTSTRAP, Mode.BOOTSTRAP, Mode.LIVE]


def test_a_history_that_would_leave_a_hole_is_refused(settings, lake, ledger) -> None:
    pay(lake, ("2018-05-31T10:30:00Z", 1, 500, "2018-05-31T10:30:01Z"))
    settings.clock.advance_to(NOON)
    bootstrap(settings, lake, ledger, SPEND, parse_time("2018-05-31T00:00:00Z"), NOON)
    with pytest.raises(BadInput, match=r"computed since 2018-05-31T00:00:00.* would leave a hole"):
        bootstrap(settings, lake, ledger, SPEND, NOON - days(9), NOON - days(2))


def test_bootstrapping_over_live_ticks_is_refused(settings, lake, ledger) -> None:
    pay(lake, ("2018-05-31T10:30:00Z", 1, 500, "2018-05-31T10:30:01Z"))
    settings.clock.advance_to(NOON)
    compute(settings, lake, ledger, SPEND, NOON - timedelta(hours=1))
    with pytest.raises(BadInput, match="has live ticks"):
        bootstrap(settings, lake, ledger, SPEND, NOON - timedelta(hours=2), NOON)


SQUARES = replace(SPEND, measures=[count("nb"), total_of_squares("cents", "cents")])


@pytest.mark.parametrize(
    ("view", "cents"),
    [
        pytest.param(SQUARES, [4_000_000_000], id="a square"),
        pytest.param(SQUARES, [3_000_000_000, 3_000_000_000], id="a sum of squares"),
        pytest.param(SPEND, [2**62, 2**62], id="a sum"),
    ],
)
def test_a_sum_or_square_of_more_than_64_bits_is_refused_for_good(settings, lake, ledger, view, cents) -> None:
    pay(lake, *(("2018-06-01T10:30:00Z", 1, value, "2018-06-01T10:30:01Z") for value in cents))
    settings.clock.advance_to(NOON)
    with pytest.raises(UseCaseError, match=r"view spend: .* a sum or square left 64 bits") as refused:
        compute(settings, lake, ledger, view, NOON)
    assert "Hint: sum a coarser unit" in str(refused.value)
    assert lake.current("spend") is None


@pytest.mark.parametrize(
    ("view", "cents", "answer"),
    [
        pytest.param(SQUARES, [3_037_000_499], 3_037_000_499**2, id="a square"),
        pytest.param(SPEND, [2**62, 2**62 - 1], 2**63 - 1, id="a sum"),
    ],
)
def test_the_greatest_sum_and_square_of_64_bits_are_exact(settings, lake, ledger, view, cents, answer) -> None:
    pay(lake, *(("2018-06-01T10:30:00Z", 1, value, "2018-06-01T10:30:01Z") for value in cents))
    settings.clock.advance_to(NOON)
    compute(settings, lake, ledger, view, NOON)
    assert answers(settings, lake, 1, NOON) == (len(cents), answer)


def test_a_tick_in_the_future_is_refused(settings, lake, ledger) -> None:
    with pytest.raises(BadInput, match="is in the future"):
        compute(settings, lake, ledger, SPEND, NOON + timedelta(days=400))


@pytest.mark.parametrize("rows", [1, 7, 60])
def test_a_range_that_is_appended_in_parts_holds_the_same_rows_in_one_snapshot(
    settings, lake, ledger, monkeypatch, rows: int
) -> None:
    paid = [NOON - timedelta(days=n % 9, minutes=n) for n in range(80)]
    pay(lake, *((at.isoformat(), n % 5, n, at.isoformat()) for n, at in enumerate(paid)))
    settings.clock.advance_to(NOON)
    held: list[list[dict[str, object]]] = []
    for part_rows in (rows, 1_000):
        monkeypatch.setattr(execution, "_PART_ROWS", part_rows)
        view = replace(SPEND, name=f"spend_{part_rows}")
        done = bootstrap(settings, lake, ledger, view, NOON - timedelta(days=12), NOON - timedelta(hours=1))
        table = lake.table(view.table)
        assert len(table.snapshots()) == 1
        stored = table.scan().to_arrow()
        assert stored.num_rows == done.rows > 100
        held.append(sorted(stored.to_pylist(), key=lambda row: (row["card"], row["event_timestamp"])))
        days = {row["event_timestamp"].date() for row in held[-1]}
        files = len(lake.past(view.table).lives)
        assert files == len(days) if part_rows == 1_000 else files >= len(days)
    assert held[0] == held[1]


def test_a_bootstrap_beside_the_first_live_tick_leaves_no_hole(settings, lake, ledger, monkeypatch) -> None:
    pay(lake, ("2018-06-01T08:30:00Z", 1, 500, "2018-06-01T08:30:01Z"))
    settings.clock.advance_to(NOON + timedelta(minutes=5))
    plan = Ledger.plan_compute

    def overtaken(*given: Any) -> Any:
        monkeypatch.undo()
        bootstrap(settings, lake, ledger, SPEND, NOON - timedelta(hours=12), NOON - timedelta(hours=6))
        return plan(*given)

    monkeypatch.setattr(Ledger, "plan_compute", overtaken)
    with pytest.raises(Transient, match="these would leave a hole"):
        compute(settings, lake, ledger, SPEND, NOON)
    compute(settings, lake, ledger, SPEND, NOON)
    tiles = ledger.computes("spend")
    assert [tile.tick_to for tile in tiles] == [NOON - timedelta(hours=6), NOON]
    assert answers(settings, lake, 1, NOON - timedelta(hours=2)) == (1, 500)


def test_what_was_appended_keeps_the_name_of_what_it_read_though_that_has_expired(
    settings, lake, ledger, monkeypatch
) -> None:
    pay(lake, ("2018-06-01T10:30:00Z", 1, 500, "2018-06-01T10:30:01Z"))
    settings.clock.advance_to(NOON + timedelta(minutes=5))
    interrupted(monkeypatch, Ledger, "commit_compute", lambda: compute(settings, lake, ledger, SPEND, NOON))
    read = lake.current("payments")
    pay(lake, ("2018-06-01T10:40:00Z", 1, 70, "2018-06-01T12:40:01Z"))
    lake.table("payments").maintenance.expire_snapshots().by_id(read.id).commit()
    compute(settings, lake, ledger, SPEND, NOON)
    (row,) = ledger.computes("spend")
    assert (row.state, row.sources) == (State.COMMITTED, {"payments": read.id})


def test_an_append_that_was_rolled_back_before_the_ledger_knew_is_done_again(
    settings, lake, ledger, monkeypatch
) -> None:
    """Also where its parent has expired since, so that nothing but its files tells that it is not in the table."""
    pay(
        lake,
        ("2018-06-01T10:30:00Z", 1, 500, "2018-06-01T10:30:01Z"),
        ("2018-06-01T11:30:00Z", 1, 70, "2018-06-01T11:30:01Z"),
    )
    settings.clock.advance_to(NOON + timedelta(minutes=5))
    compute(settings, lake, ledger, SPEND, NOON - timedelta(hours=1))
    base = lake.current("spend")
    interrupted(monkeypatch, Ledger, "commit_compute", lambda: compute(settings, lake, ledger, SPEND, NOON))
    lake.table("spend").manage_snapshots().set_current_snapshot(snapshot_id=base.id).commit()
    lake.append("spend", SPEND.schema.empty_table())
    lake.table("spend").maintenance.expire_snapshots().by_id(base.id).commit()
    compute(settings, lake, ledger, SPEND, NOON)
    assert answers(settings, lake, 1, NOON) == (2, 570)

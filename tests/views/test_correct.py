"""Correcting computed ticks on a real lake: after it the table answers as the view says, from what was read the first time."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from lockstep.clock import from_micros, parse_time
from lockstep.errors import BadInput, SchemaDrift, Transient, UseCaseError
from lockstep.lake import Lake
from lockstep.lake.engine import connect
from lockstep.lake.snapshots import COMPUTE_ID
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode, State
from lockstep.settings import Settings
from lockstep.views import Entity, Source, WindowedView, count, days, hours, soft, total, windowed_view
from lockstep.views.compute import Part, backfill, bootstrap, compute, correct, plan_backfill
from tests.interrupted import interrupted

NOON = parse_time("2018-06-01T12:00:00Z")
HOUR = timedelta(hours=1)
LAG = timedelta(minutes=5)
PAYMENTS = pa.schema(
    [
        pa.field("at", pa.timestamp("us", tz="UTC")),
        pa.field("card", pa.int64()),
        pa.field("cents", pa.int64()),
        pa.field("fee", pa.int64()),
        pa.field("seen", pa.timestamp("us", tz="UTC")),
    ]
)
WRONG = windowed_view(
    name="spend",
    entity=Entity("card", "card", "int64", "o"),
    source=Source("payments", "at", "seen", "o"),
    measures=[count("nb"), total("fee", "cents")],
    windows=[hours(2), days(1)],
    every=hours(1),
    ttl=hours(30),
    freshness=soft(hours(3)),
    owner="o",
)
FIXED = replace(WRONG, measures=[count("nb"), total("cents")])


@dataclass(frozen=True)
class Payment:
    card: int
    at: datetime
    seen: datetime
    cents: int
    fee: int = 0


def open_lake(settings: Settings) -> Lake:
    opened = Lake.open(settings, "test")
    opened.ensure_table("payments", PAYMENTS, "at")
    return opened


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return open_lake(settings)


@pytest.fixture
def ledger(settings: Settings) -> Ledger:
    return Ledger.open(settings, "test")


def pay(lake: Lake, *payments: Payment) -> None:
    lake.append("payments", pa.Table.from_pylist([vars(p) for p in payments], PAYMENTS))


Row = tuple[int, datetime, datetime, int, int, int, int]


def stored(settings: Settings, lake: Lake) -> list[Row]:
    with connect(settings) as connection:
        lake.register(connection, "spend", "spend", columns=WRONG.schema.names)
        return connection.execute(
            "SELECT card, event_timestamp, created_timestamp, nb_2h, nb_1d, cents_2h, cents_1d FROM spend"
        ).fetchall()


def answer(rows: list[Row], card: int, at: datetime) -> tuple[int, ...] | None:
    found = max((r for r in rows if r[0] == card and r[1] <= at), key=lambda r: r[1:3], default=None)
    return None if found is None or at - found[1] > WRONG.ttl else found[3:]


def value(read: list[Payment], card: int, at: datetime, delay: timedelta) -> tuple[int, ...]:
    inside = [[p for p in read if p.card == card and at - delay - w <= p.at < at - delay] for w in FIXED.windows]
    return tuple(map(len, inside)) + tuple(sum(p.cents for p in ps) for ps in inside)


def alive(read: list[Payment], card: int, at: datetime, delay: timedelta) -> bool:
    life = delay + days(1) + FIXED.ttl
    return any(p.card == card and p.at < at - delay and at < p.at + life for p in read)


BEGIN = NOON - 40 * HOUR
PAID = st.builds(
    lambda card, minutes, late, cents: Payment(
        card, BEGIN + timedelta(minutes=minutes), BEGIN + timedelta(minutes=minutes + late), cents, cents // 2
    ),
    st.integers(1, 3),
    st.one_of(st.integers(-60, 40).map(lambda h: h * 60), st.integers(-3_600, 2_400)),
    st.sampled_from([0, 5, 90, 600]),
    st.integers(0, 3),
)


@trying(max_examples=12)
@given(
    st.lists(PAID, max_size=20),
    st.lists(st.integers(4, 38), min_size=1, max_size=3, unique=True).map(sorted),
    st.integers(0, 30),
    st.integers(1, 40),
    st.sampled_from([replace(FIXED, delay=hours(3)), FIXED]),
)
def test_after_a_correction_every_tick_answers_what_the_view_says_of_what_was_read_first(
    tmp_path_factory: pytest.TempPathFactory,
    payments: list[Payment],
    cuts: list[int],
    start: int,
    length: int,
    fixed: WindowedView,
) -> None:
    """A bootstrap, and one live run a cut, each of which finds what was seen by then."""
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, clock_file=home / "clock").resolved()
    settings.clock.advance_to(BEGIN - days(9))
    lake, ledger = open_lake(settings), Ledger.open(settings, "test")
    read_at: list[tuple[datetime, datetime, list[Payment], bool]] = []
    told: list[Payment] = []
    after = BEGIN
    for cut in [*cuts, 40]:
        until = BEGIN + cut * HOUR
        settings.clock.advance_to(until + LAG)
        news = [p for p in payments if p not in told and p.seen <= until + LAG]
        pay(lake, *news)
        told += news
        if after == BEGIN:
            bootstrap(settings, lake, ledger, WRONG, BEGIN, until)
        else:
            compute(settings, lake, ledger, WRONG, until)
        read_at.append((after, until, list(told), after == BEGIN))
        after = until
    pay(lake, *payments)  # what comes later is no part of it
    settings.clock.advance_to(NOON + HOUR)
    first, last = BEGIN + start * HOUR, BEGIN + min(start + length, 40) * HOUR
    before = stored(settings, lake)
    correct(settings, lake, ledger, fixed, first, last)
    rows = stored(settings, lake)
    assert {r[2] for r in rows} - {r[2] for r in before} <= {r.planned_at for r in ledger.computes("spend")}
    for card in (1, 2, 3):
        for tick in (first + n * HOUR for n in range(1, (last - first) // HOUR + 1)):
            read, per_tick = next((r, b) for f, u, r, b in read_at if f < tick <= u)
            known = [p for p in read if not per_tick or p.seen <= tick + LAG]
            found, due = answer(rows, card, tick), value(known, card, tick, fixed.delay)
            assert found == due or (found is None and not alive(known, card, tick, fixed.delay)), (card, tick)
    again = correct(settings, lake, ledger, fixed, first, last)
    assert again.rows == 0, "there is nothing left to correct"


def live_ticks(settings: Settings, lake: Lake, ledger: Ledger) -> None:
    pay(lake, Payment(1, NOON - 90 * timedelta(minutes=1), NOON - HOUR, 500, 5))
    settings.clock.advance_to(NOON + LAG)
    compute(settings, lake, ledger, WRONG, NOON)
    pay(lake, Payment(1, NOON - timedelta(minutes=80), NOON + HOUR, 70, 7))
    settings.clock.advance_to(NOON + HOUR + LAG)
    compute(settings, lake, ledger, WRONG, NOON + HOUR)


def test_a_corrected_row_is_stamped_now_and_reads_nothing_that_came_later(settings, lake, ledger) -> None:
    live_ticks(settings, lake, ledger)
    settings.clock.advance_to(NOON + 2 * HOUR)
    done = correct(settings, lake, ledger, FIXED, NOON - HOUR, NOON + HOUR)
    assert (done.rows, done.tick) == (2, NOON + HOUR)
    rows = sorted(stored(settings, lake), key=lambda r: r[2])
    planned = [r.planned_at for r in sorted(ledger.computes("spend"), key=lambda r: r.id)]
    assert planned[2] >= NOON + 2 * HOUR
    assert [r[1:3] + r[5:] for r in rows] == [
        (NOON, planned[0], 5, 5),
        (NOON + HOUR, planned[1], 0, 12),
        (NOON, planned[2], 500, 500),
        (NOON + HOUR, planned[3], 0, 570),
    ]
    assert [(r.mode, r.tick_from) for r in ledger.computes("spend")] == [
        (Mode.LIVE, NOON - HOUR),
        (Mode.CORRECT, NOON - HOUR),
        (Mode.LIVE, NOON),
        (Mode.CORRECT, NOON),
    ]


def test_a_correction_without_a_difference_appends_an_empty_snapshot_and_keeps_the_watermark(
    settings, lake, ledger
) -> None:
    live_ticks(settings, lake, ledger)
    done = correct(settings, lake, ledger, WRONG, NOON - HOUR, NOON)
    newest = lake.snapshots("spend")[-1]
    assert (done.rows, done.snapshot_id, done.tick) == (0, newest.id, NOON + HOUR)
    assert newest.properties[COMPUTE_ID] == "3"
    assert newest.tick == int((NOON + HOUR).timestamp()) * 1_000_000


def test_what_only_the_old_code_saw_is_overridden_by_zeros(settings, lake, ledger) -> None:
    """A card whose payments all lie beyond the delay that was forgotten."""
    live_ticks(settings, lake, ledger)
    correct(settings, lake, ledger, replace(FIXED, delay=hours(9)), NOON - HOUR, NOON + HOUR)
    rows = stored(settings, lake)
    assert [answer(rows, 1, at) for at in (NOON, NOON + HOUR)] == [(0, 0, 0, 0)] * 2


def test_an_interrupted_correction_is_finished_by_the_next_run_with_its_own_time(
    settings, lake, ledger, monkeypatch
) -> None:
    live_ticks(settings, lake, ledger)

    for dies in ((Lake, "append_parts"), (Ledger, "commit_compute")):
        at = settings.clock.now()
        interrupted(monkeypatch, *dies, lambda: correct(settings, lake, ledger, FIXED, NOON, NOON + HOUR))
        settings.clock.advance_to(at + timedelta(minutes=10))
        compute(settings, lake, ledger, FIXED, NOON + HOUR)
        row = ledger.computes("spend")[-1]
        assert (row.mode, row.state, row.planned_at - at < LAG) == (Mode.CORRECT, State.COMMITTED, True)
    assert answer(stored(settings, lake), 1, NOON + HOUR) == (0, 2, 0, 570)
    assert [s.properties[COMPUTE_ID] for s in lake.snapshots("spend")] == ["1", "2", "3", "4"]


def test_of_two_corrections_at_once_one_appends_the_rows(settings, lake, ledger, monkeypatch) -> None:
    live_ticks(settings, lake, ledger)
    plain = Lake.append_parts

    def overtaken(self: Lake, *given: object, **options: object) -> object:
        monkeypatch.setattr(Lake, "append_parts", plain)
        correct(settings, lake, ledger, FIXED, NOON, NOON + HOUR)
        return plain(self, *given, **options)

    monkeypatch.setattr(Lake, "append_parts", overtaken)
    with pytest.raises(Transient, match="another writer committed first"):
        correct(settings, lake, ledger, FIXED, NOON, NOON + HOUR)
    assert correct(settings, lake, ledger, FIXED, NOON, NOON + HOUR).rows == 0
    assert len(stored(settings, lake)) == 3


def test_a_snapshot_that_has_expired_is_named_before_anything_is_appended(settings, lake, ledger) -> None:
    live_ticks(settings, lake, ledger)
    oldest = ledger.computes("spend")[0].sources["payments"]
    lake.table("payments").maintenance.expire_snapshots().by_id(oldest).commit()
    with pytest.raises(BadInput, match=f"payments has no snapshot {oldest}\n\nHint: it may have expired"):
        correct(settings, lake, ledger, FIXED, NOON - HOUR, NOON + HOUR)
    assert len(lake.snapshots("spend")) == len(ledger.computes("spend")) == 2
    assert correct(settings, lake, ledger, FIXED, NOON, NOON + HOUR).rows == 1


@pytest.mark.parametrize(("start", "end"), [(-2, 0), (0, 2), (5, 6)])
def test_only_computed_ticks_are_corrected(settings, lake, ledger, start, end) -> None:
    live_ticks(settings, lake, ledger)
    with pytest.raises(BadInput, match=r"is computed after 2018-06-01T11:00:00.* up to 2018-06-01T13:00:00"):
        correct(settings, lake, ledger, FIXED, NOON + start * HOUR, NOON + end * HOUR)


def test_ticks_of_another_length_are_not_corrected(settings, lake, ledger) -> None:
    live_ticks(settings, lake, ledger)
    with pytest.raises(UseCaseError, match="had ticks of another length than 2:00:00"):
        correct(settings, lake, ledger, replace(FIXED, every=hours(2)), NOON - 2 * HOUR + HOUR, NOON + HOUR)


def test_live_goes_on_only_from_a_tick_that_was_computed_under_its_definition(settings, lake, ledger) -> None:
    live_ticks(settings, lake, ledger)
    settings.clock.advance_to(NOON + 2 * HOUR + LAG)
    refusal = "computed under another definition up to 2018-06-01T13:00:00"
    with pytest.raises(SchemaDrift, match=refusal) as refused:
        compute(settings, lake, ledger, FIXED, NOON + 2 * HOUR)
    assert "`lockstep backfill spend --from 2018-06-01T11:00:00+00:00 --to 2018-06-01T13:00:00+00:00`" in str(
        refused.value
    )
    correct(settings, lake, ledger, FIXED, NOON - HOUR, NOON)
    with pytest.raises(SchemaDrift, match=refusal):
        compute(settings, lake, ledger, FIXED, NOON + 2 * HOUR)
    assert all(row.state is State.COMMITTED for row in ledger.computes("spend")), "nothing was claimed in vain"
    correct(settings, lake, ledger, FIXED, NOON, NOON + HOUR)
    assert compute(settings, lake, ledger, FIXED, NOON + 2 * HOUR).tick == NOON + 2 * HOUR
    settings.clock.advance_to(NOON + 3 * HOUR)
    with pytest.raises(SchemaDrift, match="another definition up to 2018-06-01T14:00:00"):
        compute(settings, lake, ledger, WRONG, NOON + 3 * HOUR)


def test_a_live_range_that_was_planned_under_the_old_definition_does_not_stand_in_the_way_of_the_fix(
    settings, lake, ledger, monkeypatch
) -> None:
    live_ticks(settings, lake, ledger)
    settings.clock.advance_to(NOON + 2 * HOUR + LAG)

    interrupted(monkeypatch, Lake, "append_parts", lambda: compute(settings, lake, ledger, WRONG, NOON + 2 * HOUR))
    done = backfill(settings, lake, ledger, FIXED, NOON - HOUR, NOON + 2 * HOUR)
    assert done.tick == NOON + 2 * HOUR
    rows = stored(settings, lake)
    assert [answer(rows, 1, NOON + n * HOUR) for n in range(3)] == [(1, 1, 500, 500), (0, 2, 0, 570), (0, 2, 0, 570)]


def test_a_backfill_chooses_by_tick(settings, lake, ledger) -> None:
    live_ticks(settings, lake, ledger)
    settings.clock.advance_to(NOON + 4 * HOUR)
    start, end = NOON - days(2), NOON + 4 * HOUR
    parts = plan_backfill(settings, ledger, FIXED, start, end)
    assert parts == (
        Part(Mode.CORRECT, NOON - HOUR, NOON + HOUR),
        Part(Mode.BOOTSTRAP, start, NOON - HOUR),
        Part(Mode.LIVE, NOON + HOUR, NOON + 3 * HOUR),
    ), "the tick at the end is not due before its lag has passed"
    assert len(ledger.computes("spend")) == 2, "a plan changes nothing"
    done = backfill(settings, lake, ledger, FIXED, start, end)
    assert done.tick == NOON + 3 * HOUR
    rows = stored(settings, lake)
    found = {n: answer(rows, 1, NOON + n * HOUR) for n in range(-2, 4)}
    assert found == {
        -2: None,
        -1: (1, 1, 500, 500),
        0: (1, 1, 500, 500),
        1: (0, 2, 0, 570),
        2: (0, 2, 0, 570),
        3: (0, 2, 0, 570),
    }
    assert next((r.mode, r.tick_to) for r in ledger.computes("spend")) == (Mode.BOOTSTRAP, NOON - HOUR)
    again = plan_backfill(settings, ledger, FIXED, start, end)
    assert [part.mode for part in again] == [Mode.CORRECT]
    assert backfill(settings, lake, ledger, FIXED, start, end).rows == 0


def test_a_backfill_of_a_view_that_was_never_computed_bootstraps_it(settings, lake, ledger) -> None:
    pay(lake, Payment(1, NOON - 5 * HOUR, NOON - 5 * HOUR, 500, 5))
    settings.clock.advance_to(NOON + HOUR)
    assert plan_backfill(settings, ledger, FIXED, NOON - days(2), NOON) == (
        Part(Mode.BOOTSTRAP, NOON - days(2), NOON),
    )
    backfill(settings, lake, ledger, FIXED, NOON - days(2), NOON)
    assert {r[2] - r[1] for r in stored(settings, lake)} == {LAG}
    with pytest.raises(BadInput, match="would leave a hole"):
        plan_backfill(settings, ledger, FIXED, NOON - days(4), NOON - days(3))
    with pytest.raises(BadInput, match="is in the future"):
        plan_backfill(settings, ledger, FIXED, NOON, NOON + days(4))


def test_a_bootstrapped_range_is_corrected_with_what_each_tick_could_have_known(settings, lake, ledger) -> None:
    pay(
        lake,
        Payment(1, NOON - 5 * HOUR, NOON - 5 * HOUR, 500, 5),
        Payment(1, NOON - 5 * HOUR, NOON - 2 * HOUR, 30, 3),
    )
    settings.clock.advance_to(NOON + HOUR)
    bootstrap(settings, lake, ledger, WRONG, NOON - 8 * HOUR, NOON)
    correct(settings, lake, ledger, FIXED, NOON - 8 * HOUR, NOON)
    rows = stored(settings, lake)
    assert [answer(rows, 1, NOON + n * HOUR)[3] for n in (-4, -3, -2, -1)] == [500, 500, 530, 530]
    assert from_micros(lake.snapshots("spend")[-1].tick or 0) == NOON


def test_a_table_that_was_rolled_back_is_gone_on_with_and_a_backfill_computes_what_went(
    settings, lake, ledger, caplog
) -> None:
    view = replace(WRONG, name="spend")
    pay(lake, Payment(1, NOON - HOUR / 2, NOON - HOUR / 2, 5), Payment(1, NOON + HOUR / 2, NOON + HOUR / 2, 7))
    for hour in range(3):
        settings.clock.advance_to(NOON + hour * HOUR + LAG)
        compute(settings, lake, ledger, view, NOON + hour * HOUR)
    whole = [row[:2] + row[3:] for row in stored(settings, lake)]
    first = lake.snapshots("spend")[0]
    lake.table("spend").manage_snapshots().set_current_snapshot(snapshot_id=first.id).commit()
    settings.clock.advance_to(NOON + 3 * HOUR + LAG)
    compute(settings, lake, ledger, view, NOON + 3 * HOUR)
    assert "its table was rolled back, with ticks after 2018-06-01T12:00:00" in caplog.text
    backfill(settings, lake, ledger, view, NOON, NOON + 2 * HOUR)
    again = [row[:2] + row[3:] for row in stored(settings, lake) if row[1] <= NOON + 2 * HOUR]
    assert sorted(again) == sorted(whole)


def expire_sources(lake: Lake) -> None:
    for snapshot in lake.snapshots("payments")[:-1]:
        lake.table("payments").maintenance.expire_snapshots().by_id(snapshot.id).commit()


def test_ticks_whose_source_expired_before_they_were_computed_are_computed_from_the_newest_one(
    settings, lake, ledger, monkeypatch
) -> None:
    live_ticks(settings, lake, ledger)
    settings.clock.advance_to(NOON + 2 * HOUR + LAG)
    interrupted(monkeypatch, Lake, "append_parts", lambda: compute(settings, lake, ledger, WRONG, NOON + 2 * HOUR))
    late = NOON + 2 * HOUR + 2 * LAG
    pay(lake, Payment(9, NOON + HOUR, late, 5, 5))
    expire_sources(lake)
    settings.clock.advance_to(NOON + 3 * HOUR + LAG)
    compute(settings, lake, ledger, WRONG, NOON + 3 * HOUR)
    rows = stored(settings, lake)
    assert [answer(rows, 9, NOON + hour * HOUR) for hour in (2, 3)] == [None, (1, 1, 5, 5)]


def test_a_correction_whose_source_expired_is_given_up_by_name_and_blocks_nothing(
    settings, lake, ledger, monkeypatch, caplog
) -> None:
    live_ticks(settings, lake, ledger)
    interrupted(monkeypatch, Lake, "append_parts", lambda: correct(settings, lake, ledger, FIXED, NOON - HOUR, NOON))
    pay(lake, Payment(9, NOON + HOUR, NOON + HOUR, 5, 5))
    expire_sources(lake)
    settings.clock.advance_to(NOON + 2 * HOUR + LAG)
    with pytest.raises(BadInput, match="may have expired"):
        compute(settings, lake, ledger, WRONG, NOON + 2 * HOUR)
    assert "up to 2018-06-01T12:00:00+00:00 stay as they are: their correction is given up" in caplog.text
    assert compute(settings, lake, ledger, WRONG, NOON + 2 * HOUR).rows > 0


def test_a_table_that_was_dropped_is_named_and_a_backfill_computes_what_went(settings, lake, ledger, caplog) -> None:
    live_ticks(settings, lake, ledger)
    whole = stored(settings, lake)
    lake.drop("spend")
    settings.clock.advance_to(NOON + 2 * HOUR + LAG)
    compute(settings, lake, ledger, WRONG, NOON + 2 * HOUR)
    assert "its table was dropped and made again, with ticks after 2018-06-01T11:00:00" in caplog.text
    backfill(settings, lake, ledger, WRONG, NOON - HOUR, NOON + HOUR)
    for at in (NOON, NOON + HOUR):
        assert answer(stored(settings, lake), 1, at) == answer(whole, 1, at)

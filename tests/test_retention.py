"""What is expired of a table's history, what stays, and why; and that nobody misses what went."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis
from pyiceberg.io.pyarrow import PyArrowFileIO

from lockstep import retention
from lockstep.clock import parse_time
from lockstep.errors import BadInput, SchemaDrift, Terminal, Transient
from lockstep.lake import Lake
from lockstep.lake.expire import Expired, expire
from lockstep.local.redis import LocalRedis
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Scope
from lockstep.online.store import connect
from lockstep.retention import Kept, maintain
from lockstep.settings import Settings
from lockstep.views import UseCase
from lockstep.views.compute import backfill, bootstrap, compute
from tests.interrupted import interrupted
from tests.lake.compaction import compact
from tests.views.test_compute import NOON, PAYMENTS, SPEND, pay

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
USE_CASE: Any = UseCase("test", (), (SPEND.source,), (SPEND,), (), (), None)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def lake(settings: Settings) -> Lake:
    opened = Lake.open(settings, "test")
    opened.ensure_table("payments", PAYMENTS, "at")
    pay(opened, ("2018-06-01T10:30:00Z", 1, 500, "2018-06-01T10:30:01Z"))
    return opened


@pytest.fixture
def ledger(settings: Settings) -> Ledger:
    return Ledger.open(settings, "test")


def forgetful(settings: Settings) -> Settings:
    """Settings by which whatever nobody needs is too old."""
    none = dict.fromkeys(["snapshots_keep", "parity_max_age", "corrections_keep"], timedelta(0))
    return settings.model_copy(update=none)


def compute_hours(settings: Settings, lake: Lake, ledger: Ledger, *hours: int) -> None:
    for hour in hours:
        pay(lake, (f"2018-06-01T{11 + hour}:30:00Z", 1, 500, f"2018-06-01T{11 + hour}:30:01Z"))
        settings.clock.advance_to(NOON + hour * HOUR + timedelta(minutes=1))
        compute(settings, lake, ledger, SPEND, NOON + hour * HOUR)


def run(settings: Settings, lake: Lake, ledger: Ledger, **options: bool) -> dict[str, Kept]:
    return {kept.table: kept for kept in maintain(forgetful(settings), USE_CASE, lake, ledger, **options)}


def files(settings: Settings, table: str) -> set[Path]:
    folder = settings.home / "warehouse" / "test" / table
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix in {".avro", ".parquet"}}


def rows(lake: Lake, table: str) -> list[Any]:
    return sorted(map(repr, lake.table(table).scan().to_arrow().to_pylist()))


def test_what_is_young_stays(settings, lake, ledger) -> None:
    compute_hours(settings, lake, ledger, 0, 1, 2)
    assert {kept.expired.snapshots for kept in maintain(settings, USE_CASE, lake, ledger)} == {0}


def test_what_is_old_goes_with_its_files_and_the_tables_read_as_before(settings, lake, ledger) -> None:
    compute_hours(settings, lake, ledger, 0, 1, 2)
    compact(lake.table("spend"))
    before, were = {name: rows(lake, name) for name in ("spend", "payments")}, files(settings, "spend")
    done = run(settings, lake, ledger)
    # The compaction does not say how far the view is computed; the append before it does.
    assert done["spend"].reasons == {"branches and tags": 1, "says lockstep.compute-id": 1}
    assert done["spend"].expired.snapshots == 2
    assert len(were - files(settings, "spend")) == done["spend"].expired.files >= 2
    assert {name: rows(lake, name) for name in before} == before
    assert done["payments"].reasons == {"branches and tags": 1}
    compute_hours(settings, lake, ledger, 3)
    assert lake.current("spend").tick is not None


def test_nothing_is_left_that_no_snapshot_needs(settings, lake, ledger) -> None:
    compute_hours(settings, lake, ledger, 0, 1, 2, 3)
    compact(lake.table("spend"))
    lake.table("spend").delete("card = 1")
    run(settings, lake, ledger)
    table = lake.table("spend")
    needed = {s.manifest_list for s in table.snapshots()}
    for snapshot in table.snapshots():
        for manifest in snapshot.manifests(table.io):
            needed |= {manifest.manifest_path}
            needed |= {e.data_file.file_path for e in manifest.fetch_manifest_entry(table.io, discard_deleted=True)}
    assert {f"file://{path}" for path in files(settings, "spend")} == needed


def test_a_dry_run_says_what_would_go_and_changes_nothing(settings, lake, ledger) -> None:
    compute_hours(settings, lake, ledger, 0, 1, 2)
    before, were = lake.snapshots("spend"), files(settings, "spend")
    assert run(settings, lake, ledger, dry_run=True)["spend"].expired == Expired(2, 0, {})
    assert (lake.snapshots("spend"), files(settings, "spend")) == (before, were)


def test_which_snapshot_brought_a_row_is_known_after_expiry_and_a_compaction(settings, lake, ledger) -> None:
    """What parity holds served rows against: a row is newer than what was served only if it was."""
    compute_hours(settings, lake, ledger, 0, 1)
    run(settings, lake, ledger)
    compute_hours(settings, lake, ledger, 2, 3)
    before = lake.past("spend").lives
    assert [(life.born, life.died) for life in before] == [(1, None), (2, None), (3, None), (4, None)]
    compact(lake.table("spend"))
    compute_hours(settings, lake, ledger, 4)
    after = lake.past("spend").lives
    assert [(life.born, life.died) for life in after] == [(1, 5), (2, 5), (3, 5), (4, 5), (5, None), (6, None)]
    assert [life.path for life in after[:4]] == [life.path for life in before]


def test_a_tag_keeps_its_snapshot(settings, lake, ledger) -> None:
    compute_hours(settings, lake, ledger, 0, 1, 2)
    tagged = lake.snapshots("spend")[0]
    lake.tag("spend", tagged.id, "training-abc")
    run(settings, lake, ledger)
    assert [s.id for s in lake.snapshots("spend")] == [tagged.id, lake.current("spend").id]


def test_what_the_next_interval_starts_from_stays_so_that_it_need_not_write_everything(settings, lake, ledger) -> None:
    with LocalRedis(settings.home) as server:
        online = server.settings(settings)
        store: redis.Redis = connect(online)
        spend = Materializer(online, lake, ledger, store, "test", SPEND)
        compute_hours(settings, lake, ledger, 0, 1)
        spend.run()
        compute_hours(settings, lake, ledger, 2, 3)
        done = run(settings, lake, ledger)["spend"]
        assert done.reasons == {"branches and tags": 1, "online, or on its way": 2}
        assert done.expired.snapshots == 1
        plan = spend.plan()
        assert ledger.materialization(plan.interval).scope is Scope.ADDED
        # and what an interval that is under way writes stays too
        assert run(settings, lake, ledger)["spend"].expired.snapshots == 0
        assert spend.run().watermark == NOON + 3 * HOUR
        store.close()


def test_an_append_that_the_ledger_does_not_know_of_yet_is_found_again(settings, lake, ledger, monkeypatch) -> None:
    compute_hours(settings, lake, ledger, 0)
    interrupted(monkeypatch, Ledger, "commit_compute", lambda: compute_hours(settings, lake, ledger, 1))
    appended = lake.current("spend")
    # Its rows are found by what came after it: a compaction, of which only the whole chain tells that they are the same.
    compact(lake.table("spend"))
    compact(lake.table("spend"))
    assert run(settings, lake, ledger)["spend"].reasons["online, or on its way"] == 2
    count = len(rows(lake, "spend"))
    compute(settings, lake, ledger, SPEND, NOON + HOUR)
    assert len(rows(lake, "spend")) == count
    assert ledger.computes("spend")[-1].snapshot_id == appended.id


def test_planned_ticks_are_computed_from_the_snapshot_they_were_planned_with(
    settings, lake, ledger, monkeypatch
) -> None:
    compute_hours(settings, lake, ledger, 0)
    settings.clock.advance_to(NOON + HOUR + timedelta(minutes=1))
    interrupted(monkeypatch, Lake, "append_parts", lambda: compute(settings, lake, ledger, SPEND, NOON + HOUR))
    planned = ledger.computes("spend")[-1].sources["payments"]
    pay(lake, ("2018-06-01T12:10:00Z", 1, 500, "2018-06-01T12:10:01Z"))
    assert run(settings, lake, ledger)["payments"].reasons["planned ticks of spend"] == 1
    assert planned in {s.id for s in lake.snapshots("payments")}


def test_a_source_is_kept_for_corrections_a_while_and_for_bootstrapped_ticks_always(settings, lake, ledger) -> None:
    settings.clock.advance_to(NOON + timedelta(minutes=10))
    bootstrap(settings, lake, ledger, SPEND, NOON - HOUR, NOON)
    compute_hours(settings, lake, ledger, 1, 2)
    read = [row.sources["payments"] for row in ledger.computes("spend")]
    pay(lake, ("2018-06-01T15:10:00Z", 1, 500, "2018-06-01T15:10:01Z"))
    kept = forgetful(settings).model_copy(update={"corrections_keep": timedelta(days=1)})
    (payments, _) = maintain(kept, USE_CASE, lake, ledger)
    assert payments.reasons["corrections of spend"] == 3
    run(settings, lake, ledger)
    assert [s.id for s in lake.snapshots("payments")] == [read[0], lake.current("payments").id]
    backfill(settings, lake, ledger, SPEND, NOON - HOUR, NOON)
    with pytest.raises(BadInput, match="it may have expired"):
        backfill(settings, lake, ledger, SPEND, NOON, NOON + HOUR)


def test_a_shorter_time_than_the_parity_window_is_refused(settings, lake, ledger) -> None:
    short = settings.model_copy(update={"snapshots_keep": timedelta(hours=23)})
    with pytest.raises(BadInput, match="snapshots_keep is 23:00:00, and a parity report may be 1 day"):
        maintain(short, USE_CASE, lake, ledger)


def test_a_snapshot_that_a_tag_names_is_refused(settings, lake, ledger) -> None:
    compute_hours(settings, lake, ledger, 0, 1)
    first = lake.snapshots("spend")[0]
    lake.tag("spend", first.id, "training-abc")
    with pytest.raises(Terminal, match="kept by 'training-abc'"):
        expire(lake.table("spend"), [first.id])


def test_what_is_appended_at_the_same_time_loses_nothing(settings, lake, ledger) -> None:
    compute_hours(settings, lake, ledger, 0, 1)
    seen, before = lake.table("spend"), rows(lake, "spend")
    lake.append("spend", pa.Table.from_pylist([], SPEND.schema))
    with pytest.raises(Transient, match="a branch or tag was made or moved"):
        expire(seen, [lake.snapshots("spend")[0].id])
    assert (len(lake.snapshots("spend")), rows(lake, "spend")) == (3, before)


@pytest.mark.parametrize("what", ["tag", "rollback"])
def test_what_is_tagged_or_rolled_back_to_at_the_same_time_stays(settings, lake, ledger, what: str) -> None:
    compute_hours(settings, lake, ledger, 0, 1, 2)
    seen, first = lake.table("spend"), lake.snapshots("spend")[0]
    if what == "tag":
        lake.tag("spend", first.id, "training-abc")
    else:
        lake.table("spend").manage_snapshots().set_current_snapshot(snapshot_id=first.id).commit()
    were = files(settings, "spend")
    with pytest.raises(Transient, match="a branch or tag was made or moved"):
        expire(seen, [first.id])
    assert lake.snapshot("spend", first.id).id == first.id
    assert were <= files(settings, "spend")


def test_two_runs_at_once_are_told_to_try_again(settings, lake, ledger) -> None:
    compute_hours(settings, lake, ledger, 0, 1)
    seen, first = lake.table("spend"), lake.snapshots("spend")[0].id
    expire(lake.table("spend"), [first])
    with pytest.raises(Transient, match="another run expires the same snapshots"):
        expire(seen, [first])


def test_a_tag_on_what_has_just_expired_is_told_to_try_again(settings, lake, ledger) -> None:
    compute_hours(settings, lake, ledger, 0, 1)
    first = lake.snapshots("spend")[0].id
    run(settings, lake, ledger)
    with pytest.raises(Transient, match="has just expired"):
        lake.tag("spend", first, "training-abc")


def test_files_that_cannot_be_removed_are_named_and_keep_no_other_table_waiting(
    settings, lake, ledger, monkeypatch
) -> None:
    compute_hours(settings, lake, ledger, 0, 1, 2)

    def refuse(_: object, path: str) -> None:
        raise FileNotFoundError(path) if path.endswith("-m0.avro") else PermissionError("read-only bucket")

    with monkeypatch.context() as patch:
        patch.setattr(PyArrowFileIO, "delete", refuse)
        with pytest.raises(
            Terminal, match=r"files of expired snapshots could not be removed, first .*read-only bucket"
        ):
            run(settings, lake, ledger)
    assert [len(lake.snapshots(name)) for name in ("payments", "spend")] == [1, 1]


def test_what_was_the_newest_until_a_moment_ago_stays(settings, lake, ledger) -> None:
    """A source that was quiet for long: whoever began to read it may be at it still."""
    pay(lake, ("2018-06-01T10:40:00Z", 1, 500, "2018-06-01T10:40:01Z"))
    first = lake.snapshots("payments")[0]
    table = lake.table("payments")
    old = [
        s.model_copy(update={"timestamp_ms": s.timestamp_ms - 30 * 86_400_000}) for s in table.metadata.snapshots[:1]
    ]
    table.metadata.snapshots[:1] = old
    assert first.id in retention._newest_until(table)
    assert retention._newest_until(table)[first.id] > datetime.now(UTC) - timedelta(minutes=5)


def test_what_was_rolled_back_stays_to_be_told_of(settings, lake, ledger, caplog) -> None:
    compute_hours(settings, lake, ledger, 0, 1, 2)
    base = lake.snapshots("spend")[0]
    lake.table("spend").manage_snapshots().set_current_snapshot(snapshot_id=base.id).commit()
    lake.append("spend", pa.Table.from_pylist([], SPEND.schema))
    done = run(settings, lake, ledger)["spend"]
    assert done.reasons["ticks that were rolled back"] == 2
    assert done.expired.snapshots == 0
    compute_hours(settings, lake, ledger, 3)
    assert "was rolled back, with ticks after" in caplog.text


def test_a_source_is_kept_whole_while_a_correction_is_recent(settings, lake, ledger) -> None:
    compute_hours(settings, lake, ledger, 0, 1, 2)
    settings.clock.advance_to(NOON + 2 * HOUR + timedelta(minutes=10))
    fixed = replace(SPEND, delay=HOUR)
    backfill(settings, lake, ledger, fixed, NOON + HOUR, NOON + 2 * HOUR)
    pay(lake, ("2018-06-01T15:10:00Z", 1, 500, "2018-06-01T15:10:01Z"))
    recent = forgetful(settings).model_copy(update={"snapshots_keep": timedelta(days=1)})
    (payments, _) = maintain(recent, USE_CASE, lake, ledger)
    assert payments.expired.snapshots == 0


def test_nothing_is_there_yet(settings, ledger) -> None:
    assert maintain(settings, USE_CASE, Lake.open(settings, "test"), ledger) == []


def test_the_time_of_a_window_is_in_the_reference_use_case_s_tables_too(settings) -> None:
    """Every table of the reference use case that Lockstep writes is looked after."""
    from lockstep.parity.kept import PARITY_REPORTS
    from lockstep.serving.log_rows import SERVED_LOG
    from lockstep.views import load_use_case

    use_case = load_use_case("feature_repo")
    lake = Lake.open(settings, use_case.project)
    tables = [*(s.table for s in use_case.sources), *(v.table for v in use_case.views), SERVED_LOG, PARITY_REPORTS]
    for table in tables:
        lake.ensure_table(table, pa.schema([pa.field("n", pa.int64())]))
        lake.append(table, pa.table({"n": [1]}))
    settings.clock.advance_to(parse_time("2018-06-01T00:00:00Z"))
    done = maintain(settings, use_case, lake, Ledger.open(settings, use_case.project))
    assert sorted(kept.table for kept in done) == sorted(set(tables))


def test_once_corrections_are_no_longer_kept_a_changed_view_is_told_the_ticks_that_can_still_be_computed_again(
    settings: Settings, lake: Lake, ledger: Ledger
) -> None:
    compute_hours(settings, lake, ledger, 0, 1, 2)
    settings.clock.advance_to(NOON + 5 * HOUR)
    run(settings, lake, ledger)
    changed = replace(SPEND, delay=HOUR)
    with pytest.raises(BadInput, match="expired"):
        backfill(settings, lake, ledger, changed, NOON - HOUR, NOON + 2 * HOUR)
    with pytest.raises(SchemaDrift) as refused:
        compute(settings, lake, ledger, changed, NOON + 3 * HOUR)
    assert "--from 2018-06-01T13:00:00+00:00 --to 2018-06-01T14:00:00+00:00`" in str(refused.value)
    backfill(settings, lake, ledger, changed, NOON + HOUR, NOON + 2 * HOUR)
    assert compute(settings, lake, ledger, changed, NOON + 3 * HOUR).tick == NOON + 3 * HOUR
    pay(lake, ("2018-06-01T14:30:00Z", 1, 500, "2018-06-01T14:30:01Z"))
    run(settings, lake, ledger)
    with pytest.raises(
        SchemaDrift, match="its source has expired, so that tick cannot be computed again: give the view"
    ):
        compute(settings, lake, ledger, SPEND, NOON + 4 * HOUR)

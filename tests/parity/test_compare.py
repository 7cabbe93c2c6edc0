"""Each cause the comparison names, made on purpose, row by row."""

from dataclasses import replace

import pytest

from lockstep.clock import parse_time
from lockstep.contract import Column, Feature, FeatureContract, TrainingCut, View
from lockstep.online.epoch import Epochs, Mark, ViewEpoch
from lockstep.parity.compare import Cause, Comparison, Difference, equal, is_mismatch
from lockstep.parity.expect import History, LakeRow
from lockstep.parity.sample import ServedRow, ServedView

HOUR, LAG = 3_600_000_000, 300_000_000
T0 = 1_000 * HOUR
VIEW = View(
    name="spend",
    table="spend",
    join_keys=(Column(name="card", dtype="int64"),),
    columns=(Column(name="nb", dtype="int64"),),
    ttl_us=48 * HOUR,
    every_us=HOUR,
    compute_lag_us=LAG,
    visible_lag_us=LAG,
    freshness_us=3 * HOUR,
    freshness_hard=False,
    owner="o",
    definition_hash="d",
)
CONTRACT = FeatureContract(
    project="test",
    feature_service="s",
    join_keys=VIEW.join_keys,
    request_inputs=(),
    features=(Feature(name="nb", view="spend", dtype="int64"),),
    views=(VIEW,),
    on_demand=(),
    cut=TrainingCut(tables=(), spine_hash="h", known_at=parse_time("2018-06-01T00:00:00Z")),
)


def lake_row(tick: int, value: int, created: int | None = None, sequence: int | None = None) -> LakeRow:
    """The row of tick number `tick`, brought by a snapshot of the same number."""
    event = T0 + tick * HOUR
    return LakeRow(event, event + LAG if created is None else created, sequence or tick, {"nb": value})


ROWS = (lake_row(1, 10), lake_row(2, 20), lake_row(3, 30))


def mark(tick: int) -> Mark:
    return Mark(interval=tick, snapshot_id=tick, sequence=tick, watermark_us=T0 + tick * HOUR)


def epochs(committed: int, writing: int | None = None) -> Epochs:
    view = ViewEpoch(committed=mark(committed), writing=mark(writing) if writing else None)
    return Epochs(incarnation="i", views={"spend": view})


def served(row: LakeRow | None, **changes: object) -> ServedRow:
    """A row served half an hour after tick 2, from a store at interval 2."""
    view = (
        ServedView("present", row.event_us, row.created_us, row.values)
        if row
        else ServedView("missing", None, None, {"nb": None})
    )
    at = T0 + 2 * HOUR + HOUR // 2
    plain = ServedRow(
        request_id="r",
        row=0,
        request_us=at,
        read_us=at,
        inputs={},
        keys={"card": 1},
        before=epochs(2),
        after=epochs(2),
        views={"spend": view},
        vector=(float(row.values["nb"]) if row else None,),
        contract=CONTRACT.hash,
        model="m",
        score=0.5,
        flags=(),
        uniform=True,
        process="p",
        counter=1,
    )
    return replace(plain, **changes)


def compare(row: ServedRow, training: float | None, rows: tuple[LakeRow, ...] = ROWS) -> list[Difference]:
    history = History(VIEW, {(1,): rows}, tuple(range(1, 10)))
    return Comparison(CONTRACT, {"spend": history}, lambda r: r.vector, ["h", "i"]).row(row, (training,))


def causes(found: list[Difference]) -> set[tuple[str, Cause]]:
    return {(d.kind, d.cause) for d in found}


def test_the_newest_row_of_the_logged_snapshot_is_no_difference() -> None:
    assert compare(served(ROWS[1]), 20.0) == []


def test_a_row_that_arrived_in_the_store_before_training_may_see_it_is_early() -> None:
    early = T0 + 2 * HOUR + LAG + 1
    found = compare(served(ROWS[1], request_us=early, read_us=early), 10.0)
    assert causes(found) == {("training", Cause.EARLY)}
    assert all(d.excused for d in found)


def test_a_store_behind_within_the_objective_is_late() -> None:
    found = compare(served(ROWS[0], before=epochs(1), after=epochs(1)), 20.0)
    assert causes(found) == {("training", Cause.LATE)}
    assert all(d.excused for d in found)


def test_a_store_behind_beyond_the_objective_is_a_mismatch() -> None:
    at = T0 + 8 * HOUR
    found = compare(served(ROWS[0], before=epochs(1), after=epochs(1), request_us=at, read_us=at), 30.0)
    assert causes(found) == {("training", Cause.UNEXPLAINED)}
    assert not any(d.excused for d in found)


def test_an_older_row_than_the_logged_snapshots_newest_is_not_consistent() -> None:
    found = compare(served(ROWS[0]), 20.0)
    assert causes(found) == {("consistency", Cause.UNEXPLAINED), ("training", Cause.UNEXPLAINED)}


def test_a_row_the_lake_holds_and_the_store_lacks_is_missing() -> None:
    found = compare(served(None), 20.0)
    assert causes(found) == {("consistency", Cause.MISSING), ("training", Cause.MISSING)}


def test_a_key_nobody_ever_wrote_is_rightly_missing() -> None:
    assert compare(served(None), None, rows=()) == []


def test_values_that_match_no_row_ever_written_are_corruption() -> None:
    corrupted = replace(ROWS[1], values={"nb": 21})
    found = compare(served(corrupted), 20.0)
    assert causes(found) == {("consistency", Cause.CORRUPTION), ("training", Cause.CORRUPTION)}


@pytest.mark.parametrize("value", [20, None])
def test_a_column_that_the_log_does_not_name_is_corruption_also_where_the_lake_has_a_null(value: int | None) -> None:
    held = replace(ROWS[1], values={"nb": value})
    unnamed = ServedView("present", held.event_us, held.created_us, {})
    found = compare(served(None, views={"spend": unnamed}), None, rows=(held,))
    assert ("consistency", Cause.CORRUPTION) in causes(found)
    assert found[0].evidence.endswith("with another nb")


def test_a_version_the_lake_never_held_is_corruption_even_if_the_value_is_right() -> None:
    found = compare(served(replace(ROWS[1], created_us=5)), 20.0)
    assert ("consistency", Cause.CORRUPTION) in causes(found)


@pytest.mark.parametrize("row", [ROWS[1], ROWS[2]])
def test_in_flight_the_row_before_and_the_row_being_written_are_both_consistent(row: LakeRow) -> None:
    at = T0 + 3 * HOUR + HOUR // 2
    flying = served(row, before=epochs(2, writing=3), after=epochs(3), request_us=at, read_us=at)
    assert [d for d in compare(flying, 30.0) if d.kind == "consistency"] == []


def test_in_flight_a_row_that_no_allowed_snapshot_has_as_newest_is_named_so() -> None:
    flying = served(ROWS[0], before=epochs(2, writing=3), after=epochs(3))
    assert ("consistency", Cause.IN_FLIGHT) in causes(compare(flying, 20.0))


def test_a_row_past_its_ttl_must_be_served_as_stale() -> None:
    at = T0 + 60 * HOUR
    old = served(ROWS[2], before=epochs(3), after=epochs(3), request_us=at, read_us=at)
    assert ("consistency", Cause.UNEXPLAINED) in causes(compare(old, None))
    view = ServedView("stale", ROWS[2].event_us, ROWS[2].created_us, ROWS[2].values)
    assert compare(replace(old, views={"spend": view}, vector=(None,)), None) == []


def test_a_vector_that_its_own_parts_do_not_make_is_found_though_training_agrees() -> None:
    history = History(VIEW, {(1,): ROWS}, tuple(range(1, 10)))
    comparison = Comparison(CONTRACT, {"spend": history}, lambda _: (21.0,), ["i"])
    assert causes(comparison.row(served(ROWS[1]), (20.0,))) == {("consistency", Cause.UNEXPLAINED)}


@pytest.mark.parametrize(("incarnation", "cause"), [(None, Cause.UNVOUCHED), ("another", Cause.UNEXPLAINED)])
def test_a_store_that_was_flushed_or_replaced_under_the_reader_is_not_consistent(
    incarnation: str | None, cause: Cause
) -> None:
    """Without this, a flushed store's empty epoch hash would make `missing` look right."""
    gone = Epochs(incarnation=incarnation, views={})
    assert ("consistency", cause) in causes(compare(served(None, before=gone, after=gone), 20.0))
    assert ("consistency", cause) in causes(compare(served(ROWS[1], after=gone), 20.0))
    assert ("consistency", cause) in causes(compare(served(ROWS[1], before=gone), 20.0))


def test_what_a_store_without_a_name_says_is_no_evidence_though_the_row_is_the_lakes() -> None:
    row = served(ROWS[1])
    nameless = replace(row, before=replace(row.before, incarnation=None), after=replace(row.after, incarnation=None))
    assert causes(compare(row, 20.0)) == set()
    found = compare(nameless, 20.0)
    assert causes(found) == {("consistency", Cause.UNVOUCHED)}
    assert is_mismatch(found)


def test_a_row_read_before_the_store_was_lost_and_filled_again_is_consistent() -> None:
    row = served(ROWS[1])
    before, after = (replace(epochs, incarnation="h") for epochs in (row.before, row.after))
    assert causes(compare(replace(row, before=before, after=after), 20.0)) == set()


@pytest.mark.parametrize(
    ("one", "other", "tolerance", "same"),
    [
        (None, None, None, True),
        (None, 0.0, None, False),
        (0.1 + 0.2, 0.3, None, False),
        (0.1 + 0.2, 0.3, 1e-9, True),
        (0.0, -0.0, None, True),
    ],
)
def test_equal_means_equal_unless_a_tolerance_is_stated(
    one: float | None, other: float | None, tolerance: float | None, same: bool
) -> None:
    assert equal(one, other, tolerance) is same

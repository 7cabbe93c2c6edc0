"""A column read from another's field is told from damage and from chance, and only over many rows."""

from dataclasses import replace

import pytest

from lockstep.clock import parse_time
from lockstep.contract import Column, Feature, FeatureContract, TrainingCut, View
from lockstep.errors import BadInput
from lockstep.online.epoch import Epochs, Mark, ViewEpoch
from lockstep.online.layout import field_of
from lockstep.online.reader import ReadPlan
from lockstep.parity.compare import Cause, Comparison
from lockstep.parity.expect import History, LakeRow
from lockstep.parity.misread import LEAST_TELLING, misread_columns
from lockstep.parity.sample import ServedRow, ServedView
from lockstep.skew.faults.wrong_column import misreading_plan

HOUR, LAG = 3_600_000_000, 300_000_000
EVENT = 1_000 * HOUR
VIEW = View(
    name="risk",
    table="risk",
    join_keys=(Column(name="terminal", dtype="int64"),),
    columns=(
        Column(name="risk_1d", dtype="float64"),
        Column(name="risk_7d", dtype="float64"),
        Column(name="nb_7d", dtype="int64"),
    ),
    ttl_us=48 * HOUR,
    every_us=HOUR,
    compute_lag_us=LAG,
    visible_lag_us=LAG,
    freshness_us=3 * HOUR,
    freshness_hard=True,
    owner="o",
    definition_hash="d",
)
CONTRACT = FeatureContract(
    project="test",
    feature_service="s",
    join_keys=VIEW.join_keys,
    request_inputs=(),
    features=tuple(Feature(name=c.name, view="risk", dtype=c.dtype) for c in VIEW.columns),
    views=(VIEW,),
    on_demand=(),
    cut=TrainingCut(tables=(), spine_hash="h", known_at=parse_time("2018-06-01T00:00:00Z")),
)
LAKE = [
    {"risk_1d": 0.0, "risk_7d": 0.0, "nb_7d": 4},
    {"risk_1d": 0.0, "risk_7d": 0.5, "nb_7d": 2},
    {"risk_1d": 1.0, "risk_7d": 0.25, "nb_7d": 4},
    {"risk_1d": 0.0, "risk_7d": 0.125, "nb_7d": 8},
    {"risk_1d": 0.0, "risk_7d": 0.0, "nb_7d": 1},
]
HISTORY = History(
    VIEW, {(n,): (LakeRow(EVENT, EVENT + LAG, 1, values),) for n, values in enumerate(LAKE)}, sequences=(1,)
)


def served(terminal: int, values: dict[str, float | int | None], process: str = "p") -> ServedRow:
    mark = Mark(interval=1, snapshot_id=1, sequence=1, watermark_us=EVENT)
    epochs = Epochs("i", {"risk": ViewEpoch(committed=mark)})
    at = EVENT + HOUR // 2
    return ServedRow(
        request_id="r",
        row=0,
        request_us=at,
        read_us=at,
        inputs={},
        keys={"terminal": terminal},
        before=epochs,
        after=epochs,
        views={"risk": ServedView("present", EVENT, EVENT + LAG, values)},
        vector=tuple(None if v is None else float(v) for v in values.values()),
        contract=CONTRACT.hash,
        model="m",
        score=0.5,
        flags=(),
        uniform=True,
        process=process,
        counter=terminal,
    )


def misread(values: dict[str, float | int]) -> dict[str, float | int | None]:
    return values | {"risk_7d": values["risk_1d"]}


def test_a_column_that_holds_another_ones_value_in_every_row_is_named_with_that_one() -> None:
    rows = [served(n, misread(values)) for n, values in enumerate(LAKE)]
    assert misread_columns(rows, {"risk": HISTORY}) == {("p", "risk", "risk_7d"): "risk_1d"}


def test_a_process_that_reads_right_is_not_blamed_for_another_one() -> None:
    rows = [served(n, misread(values), "broken") for n, values in enumerate(LAKE)]
    rows += [served(n, values, "sound") for n, values in enumerate(LAKE)]
    assert misread_columns(rows, {"risk": HISTORY}) == {("broken", "risk", "risk_7d"): "risk_1d"}


def test_zeros_in_place_of_values_are_no_misread_column_although_most_neighbours_are_zero() -> None:
    rows = [served(n, values | {"risk_7d": 0.0}) for n, values in enumerate(LAKE)]
    assert misread_columns(rows, {"risk": HISTORY}) == {}


def test_fewer_telling_rows_than_three_prove_nothing() -> None:
    rows = [served(n, misread(values)) for n, values in enumerate(LAKE)]
    told = [row for row in rows if LAKE[row.keys["terminal"]]["risk_1d"] != LAKE[row.keys["terminal"]]["risk_7d"]]
    assert len(told) == LEAST_TELLING
    assert misread_columns([rows[0], *told[:-1]], {"risk": HISTORY}) == {}


def test_one_damaged_row_that_is_asked_for_again_and_again_is_no_misread_column() -> None:
    rows = [replace(served(1, misread(LAKE[1])), counter=n) for n in range(2 * LEAST_TELLING)]
    named = misread_columns(rows, {"risk": HISTORY})
    assert named == {}
    found = Comparison(CONTRACT, {"risk": HISTORY}, lambda row: row.vector, ["i"], named).row(rows[0], (0.0, 0.5, 2.0))
    assert found[0].cause is Cause.CORRUPTION


def test_where_two_columns_explain_every_row_neither_is_named() -> None:
    view = VIEW.model_copy(update={"columns": (Column(name="risk_0d", dtype="float64"), *VIEW.columns)})
    lake = {
        key: tuple(replace(row, values={"risk_0d": row.values["risk_1d"], **row.values}) for row in rows)
        for key, rows in HISTORY.rows.items()
    }
    rows = [served(n, misread({"risk_0d": values["risk_1d"], **values})) for n, values in enumerate(LAKE)]
    assert misread_columns(rows, {"risk": replace(HISTORY, view=view, rows=lake)}) == {}


def test_a_column_that_the_log_does_not_name_was_not_read_from_one_that_is_null() -> None:
    lake = {key: (replace(row, values={**row.values, "risk_1d": None}),) for key, (row,) in HISTORY.rows.items()}
    rows = [served(n, {"risk_1d": None, "nb_7d": values["nb_7d"]}) for n, values in enumerate(LAKE)]
    assert misread_columns(rows, {"risk": replace(HISTORY, rows=lake)}) == {}


def test_the_comparison_names_the_cause_the_feature_and_the_column_that_was_read() -> None:
    rows = [served(n, misread(values)) for n, values in enumerate(LAKE)]
    named = misread_columns(rows, {"risk": HISTORY})
    comparison = Comparison(CONTRACT, {"risk": HISTORY}, lambda row: row.vector, ["i"], named)

    found = comparison.row(rows[1], (0.0, 0.5, 2.0))

    assert [(d.kind, d.feature, d.cause) for d in found] == [
        ("consistency", None, Cause.WRONG_ROW),
        ("training", "risk_7d", Cause.WRONG_ROW),
    ]
    assert (
        found[0].evidence
        == "risk_7d holds the value of risk_1d, in every compared row of this process that the lake holds"
    )
    assert not any(d.excused for d in found)


def test_damage_beside_a_misread_column_stays_corruption() -> None:
    rows = [served(n, misread(values)) for n, values in enumerate(LAKE)]
    named = misread_columns(rows, {"risk": HISTORY})
    damaged = served(1, misread(LAKE[1]) | {"nb_7d": 99})
    found = Comparison(CONTRACT, {"risk": HISTORY}, lambda row: row.vector, ["i"], named).row(damaged, (0.0, 0.5, 2.0))
    assert found[0].cause is Cause.CORRUPTION
    assert found[0].evidence.endswith("with another risk_7d, nb_7d")


def test_the_injected_plan_reads_one_field_in_place_of_another_and_nothing_else() -> None:
    sound, skewed = ReadPlan.compile(CONTRACT), misreading_plan(CONTRACT, "risk", "risk_7d", "risk_1d")
    (before,), (after,) = sound.groups, skewed.groups
    changed = {(a, b) for a, b in zip(before.fields, after.fields, strict=True) if a != b}
    assert changed == {(field_of("risk", "risk_7d"), field_of("risk", "risk_1d"))}


def test_a_column_that_the_contract_does_not_read_is_named() -> None:
    with pytest.raises(BadInput, match="the contract reads no risk:risk_8d"):
        misreading_plan(CONTRACT, "risk", "risk_8d", "risk_1d")

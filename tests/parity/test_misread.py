"""A column read from another's field is told from damage and from chance, and only over many rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from parity_case import CONTRACT, LAKE, NOW, LakeRow, Rows, facts_of, lake_row, read_of, served

from lockstep.errors import BadInput
from lockstep.online.layout import field_of
from lockstep.online.reader import ReadPlan
from lockstep.parity.misread import LEAST_EXPLAINED, LEAST_TELLING, Source, misread_columns
from lockstep.parity.sample import ServedRow
from lockstep.skew.faults.wrong_column import misreading_plan

RISKS = ((0.0, 0.0), (0.0, 0.5), (1.0, 0.25), (0.0, 0.125), (0.0, 0.0))
"""Of each shop `risk_1d` and `risk_7d`: in three they differ."""
TELLING = (1, 2, 3)
Values = Mapping[str, Any]


def rows_of(risks: Sequence[tuple[Any, Any]]) -> list[LakeRow]:
    return [
        lake_row("risk", shop, NOW, values={"calls": shop, "risk_1d": day, "risk_7d": week})
        for shop, (day, week) in enumerate(risks, 1)
    ]


FEW: Rows = {**LAKE, "risk": rows_of(RISKS)}


def read(change: Callable[[Values], Values], rows: Rows = FEW, **changes: Any) -> list[ServedRow]:
    """A row of each shop, whose values are changed on the way."""
    return [
        served(
            row.key[0],
            key=row.key[0],
            rows=rows,
            read={"risk": replace(read_of(row), values=change(row.values))},
            **changes,
        )
        for row in rows["risk"]
    ]


def misread(values: Values) -> Values:
    return {**values, "risk_7d": values["risk_1d"]}


def found(
    rows: Sequence[ServedRow], lake: Rows = FEW, column: str = "risk_7d"
) -> Mapping[tuple[str, str, str], Source]:
    facts = facts_of(rows, lake)
    return misread_columns(facts, range(len(rows)), [(row.process, "risk", column) for row in rows])


def test_a_column_that_holds_another_ones_value_in_every_row_is_named_with_that_one() -> None:
    assert found(read(misread)) == {("p", "risk", "risk_7d"): ("risk", "risk_1d")}


def test_a_process_that_reads_right_is_not_blamed_for_another_one() -> None:
    rows = [*read(misread, process="broken"), *read(dict, process="sound")]
    assert found(rows) == {("broken", "risk", "risk_7d"): ("risk", "risk_1d")}


def test_rows_that_are_not_of_the_sample_say_nothing() -> None:
    rows = read(misread)
    facts = facts_of(rows, FEW)
    assert misread_columns(facts, [1, 2], [("p", "risk", "risk_7d")]) == {}


def test_zeros_in_place_of_values_are_no_misread_column_although_most_neighbours_are_zero() -> None:
    assert found(read(lambda values: {**values, "risk_7d": 0.0})) == {}


def test_fewer_telling_rows_than_three_prove_nothing() -> None:
    rows = read(misread)
    told = [rows[n] for n in TELLING]
    assert len(told) == LEAST_TELLING
    assert found([rows[0], *told]) != {}
    assert found([rows[0], *told[:-1]]) == {}


def test_one_damaged_row_that_is_asked_for_again_and_again_is_no_misread_column() -> None:
    once = read(misread)[1]
    assert found([replace(once, counter=n) for n in range(2 * LEAST_TELLING)]) == {}


@pytest.mark.parametrize(("damaged", "named"), [(1, True), (2, False)])
def test_another_fault_may_have_touched_one_row_in_twenty(damaged: int, named: bool) -> None:
    lake = {**LAKE, "risk": rows_of([(shop / 64, 3.0 + shop) for shop in range(1, 21)])}
    rows = read(misread, lake)
    for n in range(damaged):
        rows[n] = replace(rows[n], views={**rows[n].views, "risk": read_of(lake["risk"][n], risk_7d=-7.7)})
    assert (len(rows) - damaged) / len(rows) >= LEAST_EXPLAINED or not named
    assert bool(found(rows, lake)) is named


def with_risks_in(column: str, lake: Rows) -> Rows:
    """A lake in which a column of the other view holds what `risk_1d` does."""
    rows = [replace(r, values={**r.values, column: RISKS[(r.key[0] - 1) % len(RISKS)][0]}) for r in lake["spend"]]
    return {**lake, "spend": rows}


def test_a_column_of_the_view_itself_is_taken_before_one_of_another_view() -> None:
    lake = with_risks_in("limit", FEW)
    assert found(read(misread, lake), lake) == {("p", "risk", "risk_7d"): ("risk", "risk_1d")}


def test_where_two_columns_explain_every_row_neither_is_named() -> None:
    elsewhere = {**LAKE, "risk": rows_of([(9.0 + week, week) for _, week in RISKS])}
    one, two = with_risks_in("limit", elsewhere), with_risks_in("total", with_risks_in("limit", elsewhere))
    days = [day for day, _ in RISKS]

    def told(lake: Rows) -> Mapping[tuple[str, str, str], Source]:
        return found(read(lambda values: {**values, "risk_7d": days[values["calls"] - 1]}, lake), lake)

    assert told(one) == {("p", "risk", "risk_7d"): ("spend", "limit")}
    assert told(two) == {}


def test_a_column_of_another_type_is_not_taken_for_the_one_that_was_read() -> None:
    assert found(read(lambda values: {**values, "risk_7d": float(values["calls"])})) == {}


def test_a_column_that_the_log_does_not_name_was_not_read_from_one_that_is_null() -> None:
    lake = {**LAKE, "risk": rows_of([(None, week) for _, week in RISKS])}
    assert found(read(lambda values: {"risk_1d": None, "calls": values["calls"]}, lake), lake) == {}


def test_the_injected_plan_reads_one_field_in_place_of_another_and_nothing_else() -> None:
    sound, skewed = ReadPlan.compile(CONTRACT), misreading_plan(CONTRACT, "risk", "risk_7d", "risk_1d")
    (_, before), (_, after) = sound.groups, skewed.groups
    changed = {(a, b) for a, b in zip(before.fields, after.fields, strict=True) if a != b}
    assert changed == {(field_of("risk", "risk_7d"), field_of("risk", "risk_1d"))}


def test_a_column_that_the_contract_does_not_read_is_named() -> None:
    with pytest.raises(BadInput, match="the contract reads no risk:risk_8d"):
        misreading_plan(CONTRACT, "risk", "risk_8d", "risk_1d")

"""What each hook of a fault changes, and what it leaves alone."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from small_contract import CONTRACT, HOUR, RISK, SPEND, moment, reading, stored_row

from lockstep.errors import BadInput
from lockstep.online.layout import field_of, fields_of
from lockstep.online.reader import ReadPlan
from lockstep.online.values import decode_value
from lockstep.skew.catalog import chosen, faults_of
from lockstep.skew.fault import Fault, Pair, chance
from lockstep.skew.faults.corruption import flipped
from lockstep.skew.faults.precision import to_cents, to_float16, to_float32
from lockstep.skew.readings import with_view
from lockstep.skew.windows import last_measure

FAULTS = faults_of(CONTRACT)


def test_every_fault_has_a_name_of_its_own_and_states_what_is_right() -> None:
    assert all(fault.says for fault in FAULTS.values())
    assert [f.name for f in FAULTS.values() if bool(f.causes) == bool(f.unseen)] == []


def test_a_fault_is_chosen_by_the_beginning_of_its_name() -> None:
    assert [fault.name for fault in chosen(FAULTS, ["missing-5pct:"])] == ["missing-5pct:spend", "missing-5pct:risk"]
    assert len(chosen(FAULTS, [])) == len(FAULTS)
    with pytest.raises(BadInput, match="no fault 'mising'"):
        chosen(FAULTS, ["mising"])


def test_windows_are_ordered_by_their_length_whatever_their_unit() -> None:
    assert [column.name for column in last_measure(RISK)] == ["risk_24h", "risk_7d"]


def test_the_second_window_is_read_from_the_field_of_the_first() -> None:
    plan = FAULTS["wrong-column:risk"].plan(ReadPlan.compile(CONTRACT))
    fields = {group.slices[0].view.name: group.fields for group in plan.groups}
    assert fields["spend"] == fields_of(SPEND)
    assert fields["risk"][3] == fields["risk"][4] == field_of("risk", "risk_24h")


def test_a_late_view_keeps_its_objective_falls_back_or_is_to_be_found() -> None:
    assert FAULTS["stale-1h:risk"].unseen.startswith("it keeps")
    assert FAULTS["stale-1d:risk"].unseen.startswith("the fallback")
    assert FAULTS["stale-1d-unguarded:risk"].causes == {"materialization_gap"}
    assert FAULTS["stale-1d:spend"].causes == {"materialization_gap"}
    assert "stale-1d-unguarded:spend" not in FAULTS


def test_stored_values_are_multiplied_and_nothing_else() -> None:
    row = stored_row()
    changed = FAULTS["cents:risk"].stored(RISK, b"key", row)
    assert decode_value(changed[field_of("risk", "risk_7d")], "float64") == 25.0
    different = {field for field in row if row[field] != changed[field]}
    assert different == {field_of("risk", "risk_7d"), field_of("risk", "risk_24h")}
    assert FAULTS["cents:risk"].stored(SPEND, b"key", row) == row


def test_what_a_caller_sends_is_multiplied() -> None:
    sent = FAULTS["cents-sent"].sent(CONTRACT, {"card": 1, "cents": 7})
    assert sent == {"card": 1, "cents": 700}


def test_a_share_of_the_keys_is_missing_and_always_the_same_ones() -> None:
    fault, row = FAULTS["missing-20pct:risk"], stored_row()
    keys = [str(number).encode() for number in range(2_000)]
    gone = [key for key in keys if fault.stored(RISK, key, row) != row]
    assert 330 < len(gone) < 470
    assert fault.stored(RISK, gone[0], row) == {field_of("spend", "nb_1d"): b"spend"}
    assert FAULTS["missing-100pct:risk"].stored(RISK, b"any", row) == {field_of("spend", "nb_1d"): b"spend"}


def test_chance_is_the_same_for_the_same_parts_only() -> None:
    assert chance("a", b"1") == chance("a", b"1")
    assert len({chance("a", number) for number in range(100)}) == 100


def test_a_renamed_column_is_under_another_field_and_a_retyped_one_is_a_text() -> None:
    row, field = stored_row(), field_of("risk", "risk_24h")
    renamed = FAULTS["renamed-column"].stored(RISK, b"k", row)
    assert field not in renamed
    assert renamed[field_of("risk", "risk_24h_v2")] == row[field]
    assert decode_value(FAULTS["retyped-column"].stored(RISK, b"k", row)[field], "string") == "0.5"


def test_join_keys_or_rows_are_swapped() -> None:
    asked = {"card": [1, 2, 3], "shop": [7, 8, 9]}
    assert FAULTS["keys-swapped"].asked(asked) == {"card": [7, 8, 9], "shop": [1, 2, 3]}
    assert FAULTS["rows-swapped"].asked(asked) == {"card": [2, 1, 3], "shop": [8, 7, 9]}


def test_each_row_gets_the_one_before_it_and_the_first_one_that_of_the_last_request() -> None:
    read = FAULTS["previous-row"].read(reading(0.1, 0.2, 0.3), moment(reading(0.8, 0.9)))
    assert read.views["risk"].values["risk_7d"] == [0.9, 0.1, 0.2]
    assert read.views["spend"].values["nb_7d"] == [1, 0, 1]
    assert read.views["risk"].event_us == [HOUR + 1, HOUR, HOUR + 1]


def test_nulls_become_zeros_and_columns_another_order() -> None:
    vectors = np.array([[0.5, np.nan, 2.0]])
    assert FAULTS["null-to-zero"].vectors(CONTRACT, vectors, moment()).tolist() == [[0.5, 0.0, 2.0]]
    drawn, ordered = moment(), np.array([[1.0, 2.0, 3.0]])
    orders = {tuple(FAULTS["order-mixed"].vectors(CONTRACT, ordered, drawn)[0]) for _ in range(40)}
    assert orders == {(1.0, 2.0, 3.0), (3.0, 2.0, 1.0)}  # euros, nb_1d, risk_7d
    other = FAULTS["other-function"].vectors(CONTRACT, vectors, moment())
    assert other[0, [0, 2]].tolist() == [0.5, 2.2]
    assert vectors[0, 2] == 2.0


def test_a_view_is_judged_by_another_ttl() -> None:
    plan = FAULTS["ttl-ignored:spend"].plan(ReadPlan.compile(CONTRACT))
    ttls = {part.view.name: part.view.ttl_us for group in plan.groups for part in group.slices}
    assert ttls == {"spend": 0, "risk": 72 * HOUR}
    assert FAULTS["ttl-ignored:spend"].lags == {"spend": timedelta(days=4)}
    short = FAULTS["ttl-too-short:spend"].plan(ReadPlan.compile(CONTRACT))
    assert short.groups[0].slices[0].view.ttl_us == 3 * HOUR


def test_one_number_in_some_rows_is_damaged() -> None:
    risks = [0.5] * 2_000
    before, after = reading(*risks), FAULTS["corruption-5pct"].read(reading(*risks), moment())
    different = [
        (name, column, row)
        for name, rows in before.views.items()
        for column, values in rows.values.items()
        for row, value in enumerate(values)
        if after.views[name].values[column][row] != value
    ]
    assert 60 < len(different) < 140
    assert len({row for _, _, row in different}) == len(different)
    assert flipped(5) == 69
    assert flipped(None) is None
    assert flipped(0.5) not in {0.5, None}


@pytest.mark.parametrize(
    ("to", "value", "found"),
    [(to_float32, 0.1, 0.10000000149011612), (to_float16, 1e9, 65504.0), (to_cents, 0.126, 0.13)],
)
def test_numbers_lose_digits(to: object, value: float, found: float) -> None:
    assert callable(to)
    assert to(value) == found


def test_precision_is_lost_of_floats_alone() -> None:
    read = FAULTS["rounded"].read(reading(0.126, 0.5), moment())
    assert read.views["risk"].values["risk_7d"] == [0.13, 0.5]
    assert read.views["risk"].values["nb_30d"] == [0, 1]


def test_a_pair_does_both_and_names_either() -> None:
    pair = Pair.of(FAULTS["rows-swapped"], replace(FAULTS["missing-100pct:risk"], clock=timedelta(hours=1)))
    assert pair.asked({"card": [1, 2]}) == {"card": [2, 1]}
    assert pair.stored(RISK, b"k", stored_row()) == {field_of("spend", "nb_1d"): b"spend"}
    assert (pair.of_store, pair.of_lake, pair.clock) == (True, False, timedelta(hours=1))
    assert pair.causes == {"wrong_row", "missing"}


def test_a_plain_fault_changes_nothing() -> None:
    clean, row, vectors = Fault(name="clean", says="nothing"), stored_row(), np.array([[1.0, np.nan]])
    assert clean.stored(RISK, b"k", row) is row
    assert clean.read(reading(0.5), moment()) == reading(0.5)
    assert clean.vectors(CONTRACT, vectors, moment()) is vectors
    assert not clean.of_store
    assert not clean.of_lake


def test_a_view_that_was_read_earlier_comes_with_its_own_epoch() -> None:
    then, now = reading(0.1, sequence=1), reading(0.9, sequence=5)
    mixed = with_view(now, "risk", then.views["risk"], then.before.views["risk"], then.after.views["risk"])
    assert mixed.views["risk"].values["risk_7d"] == [0.1]
    assert mixed.views["spend"] == now.views["spend"]
    sequences = {name: epoch.committed and epoch.committed.sequence for name, epoch in mixed.before.views.items()}
    assert sequences == {"spend": 5, "risk": 1}

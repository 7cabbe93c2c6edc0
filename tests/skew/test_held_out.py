"""What each fault held out changes, and what it leaves alone."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from small_contract import CONTRACT, HOUR, RISK, SPEND, moment, reading, stored_row

from lockstep.contract import Column, Feature
from lockstep.online.layout import field_of
from lockstep.online.values import decode_value
from lockstep.parity.cause import Cause
from lockstep.skew.catalog import chosen, faults_of, held_out_of
from lockstep.skew.fault import Fault, Moment, Pair
from lockstep.skew.held_out import function_time, name_clash
from lockstep.skew.held_out.int16 import wrapped
from lockstep.skew.stored import encoded

FAULTS = held_out_of(CONTRACT)
Columns = Mapping[str, NDArray[Any]]


def given(columns: Columns) -> Columns:
    return columns


def applied(fault: Fault, columns: Columns) -> Columns:
    """What the function `made` is given, or returns, as it does what it is given."""
    return fault.functions(CONTRACT, {"made": given})["made"](columns)


def test_each_has_a_name_of_its_own_and_names_causes_that_there_are() -> None:
    known = faults_of(CONTRACT)
    assert not FAULTS.keys() & known.keys()
    assert all(fault.held_out and fault.says and not fault.unseen for fault in FAULTS.values())
    assert not any(fault.held_out for fault in known.values())
    for fault in FAULTS.values():
        assert fault.causes
        assert {Cause(cause) for cause in fault.causes | fault.also}
        assert not fault.causes & fault.also
    assert [fault.name for fault in chosen(known | FAULTS, ["doubled", "cents-sent"])] == [
        "cents-sent",
        "doubled-2pct",
    ]


def test_an_old_mapping_moves_the_columns_of_one_view_in_half_of_the_requests() -> None:
    before, drawn = reading(0.5), moment()
    rows = before.views["spend"]._replace(values={"nb_1d": [1], "nb_7d": [7]})
    before = before._replace(views={**before.views, "spend": rows})
    found = [FAULTS["old-mapping:spend"].read(before, drawn) for _ in range(40)]
    assert {tuple(each.views["spend"].values["nb_1d"]) for each in found} == {(1,), (7,)}
    moved = next(each for each in found if each != before)
    assert moved.views["spend"] == rows._replace(values={"nb_1d": [7], "nb_7d": [1]})
    assert moved.views["risk"] is before.views["risk"]


def test_columns_of_one_name_have_the_values_of_the_later_view_where_it_has_any() -> None:
    shared = RISK.model_copy(update={"columns": (*RISK.columns, Column(name="nb_7d", dtype="int64"))})
    (fault,) = name_clash.variants(CONTRACT.model_copy(update={"views": (SPEND, shared)}))
    before = reading(0.1, 0.2, 0.3)
    risk = before.views["risk"]
    risk = risk._replace(status=["present", "stale", "present"], values={**risk.values, "nb_7d": [70, 71, None]})
    before = before._replace(views={**before.views, "risk": risk})
    after = fault.read(before, moment())
    assert after.views["spend"].values == {"nb_1d": [0, 1, 2], "nb_7d": [70, 1, 2]}
    assert after.views["risk"] is risk
    assert list(name_clash.variants(CONTRACT)) == []


def test_some_keys_have_the_hash_of_the_one_before_and_always_the_same_ones() -> None:
    cards = list(range(2_000))
    asked = FAULTS["hash-collision"].asked({"card": cards, "shop": [5] * 2_000})
    moved = [card for card, found in zip(cards, asked["card"], strict=True) if found != card]
    assert 60 < len(moved) < 140
    assert all(asked["card"][card] == card - 1 for card in moved)
    assert FAULTS["hash-collision"].asked({"card": moved, "shop": [5] * len(moved)})["card"] == [c - 1 for c in moved]
    assert len(set(asked["shop"])) == 1


def test_scores_are_those_of_the_next_row() -> None:
    posted = FAULTS["next-score"].posted(CONTRACT, np.array([[1.0], [2.0], [3.0]]))
    assert posted.tolist() == [[2.0], [3.0], [1.0]]


def test_a_row_is_kept_for_six_hours_beside_the_epoch_of_now() -> None:
    fault, memory, drawn = FAULTS["row-cache-6h"], dict[Any, Any](), np.random.default_rng(0)

    def read(risk: float, hours: int, shop: int = 7) -> tuple[float, int]:
        asked = Moment(drawn, None, {"card": [1], "shop": [shop]}, [hours * HOUR], memory)
        found = fault.read(reading(risk, sequence=hours + 1), asked)
        committed = found.before.views["risk"].committed
        return found.views["risk"].values["risk_7d"][0], committed.sequence if committed else 0

    assert [read(0.1, 0), read(0.2, 5), read(0.3, 5, shop=8)] == [(0.1, 1), (0.1, 6), (0.3, 6)]
    assert [read(0.4, 6), read(0.5, 11)] == [(0.4, 7), (0.4, 12)]


def test_a_restored_store_is_half_a_day_behind_and_does_not_say_so() -> None:
    fault = FAULTS["restored-backup-12h"]
    assert fault.lags == dict.fromkeys(("spend", "risk"), timedelta(hours=12))
    assert not fault.honest
    then, now = reading(0.1).views["risk"], reading(0.9).views["risk"]
    assert fault.late("risk", now, then, {}) is then


def test_keys_of_one_slot_in_sixteen_have_the_rows_of_a_day_ago() -> None:
    fault, keys = FAULTS["skipped-slot:risk"], list(range(1_000))
    then, now = reading(*[0.1] * 1_000).views["risk"], reading(*[0.9] * 1_000).views["risk"]
    entities = {"card": keys, "shop": keys}
    late = fault.late("risk", now, then, entities)
    assert (fault.lags, fault.honest) == ({"risk": timedelta(days=1)}, False)
    assert 30 < late.values["risk_7d"].count(0.1) < 100
    assert late.values["risk_7d"].count(0.1) + late.values["risk_7d"].count(0.9) == 1_000
    assert fault.late("risk", now, then, entities) == late


def test_one_column_is_a_day_old_where_there_was_a_row_and_the_rest_of_it_is_not() -> None:
    then, now = reading(0.1, 0.2).views["spend"], reading(0.1, 0.2).views["spend"]
    then = then._replace(event_us=[None, 1], values={"nb_1d": [None, 5], "nb_7d": [None, 6]})
    late = FAULTS["torn-row:spend"].late("spend", now, then, {})
    assert late == now._replace(values={"nb_1d": [0, 5], "nb_7d": [0, 1]})


def test_a_moved_store_has_no_name_and_lacks_some_keys() -> None:
    fault, row = FAULTS["moved-store"], stored_row()
    found = [fault.stored(RISK, str(number).encode(), row) for number in range(2_000)]
    assert 140 < found.count({}) < 260
    assert found.count(row) == 2_000 - found.count({})
    before = reading(0.5)
    after = fault.read(before, moment())
    assert (after.before.incarnation, after.after.incarnation) == (None, None)
    assert (after.views, after.before.views) == (before.views, before.before.views)
    assert not fault.guarded


def test_one_stored_number_in_fifty_is_doubled() -> None:
    fault, row, columns = FAULTS["doubled-2pct"], stored_row(), {c.name: c.dtype for c in RISK.columns}
    doubled = 0
    for number in range(1_000):
        changed = fault.stored(RISK, str(number).encode(), row)
        different = {field for field in row if changed[field] != row[field]}
        assert different <= {field_of("risk", name) for name in columns}
        doubled += len(different)
        if (field := field_of("risk", "risk_7d")) in different:
            assert decode_value(changed[field], "float64") == 0.5
    assert 30 < doubled < 100  # of 3,000


def test_whole_numbers_wrap_around_at_sixteen_bits() -> None:
    assert [wrapped(value) for value in (0, 32_767, 32_768, 70_000, -1)] == [0, 32_767, -32_768, 4_464, -1]
    row, field = stored_row(), field_of("risk", "nb_30d")
    row[field] = encoded(70_000, "int64")
    changed = FAULTS["int16"].stored(RISK, b"k", row)
    assert decode_value(changed[field], "int64") == 4_464
    assert changed == {**row, field: changed[field]}


def test_nulls_become_minus_one() -> None:
    vectors = np.array([[0.5, np.nan, 2.0]])
    assert FAULTS["minus-one"].vectors(CONTRACT, vectors, moment()).tolist() == [[0.5, -1.0, 2.0]]


def test_functions_are_given_another_request_time_and_nothing_else() -> None:
    (made,) = CONTRACT.on_demand
    timed = made.model_copy(update={"inputs": (*made.inputs, Column(name="request_time_us", dtype="int64"))})
    milliseconds, zone = function_time.variants(CONTRACT.model_copy(update={"on_demand": (timed,)}))
    columns = {"cents": np.array([7]), "request_time_us": np.array([2 * HOUR])}
    for fault, time in ((milliseconds, 2 * 3_600_000), (zone, 7 * HOUR + HOUR // 2)):
        found = applied(fault, columns)
        assert found["request_time_us"].tolist() == [time]
        assert found["cents"].tolist() == [7]
        assert applied(fault, {"cents": np.array([7])}).keys() == {"cents"}
    assert columns["request_time_us"].tolist() == [2 * HOUR]
    assert list(function_time.variants(CONTRACT)) == []


def test_functions_are_given_the_inputs_of_the_next_row_with_what_is_stored_of_their_own() -> None:
    found = applied(FAULTS["next-inputs"], {"cents": np.array([1, 2, 3]), "nb_1d": np.array([7, 8, 9])})
    assert {name: values.tolist() for name, values in found.items()} == {"cents": [2, 3, 1], "nb_1d": [7, 8, 9]}


def test_functions_lose_signs() -> None:
    found = applied(FAULTS["absolute"], {"euros": np.array([-1.5, 2.0, np.nan])})["euros"]
    assert np.array_equal(found, [1.5, 2.0, np.nan], equal_nan=True)


def test_from_the_middle_on_features_are_one_place_late() -> None:
    wider = CONTRACT.model_copy(
        update={"features": (*CONTRACT.features, Feature(name="a", view="made", dtype="float64"))}
    )
    found = FAULTS["inserted-feature"].vectors(wider, np.array([[1.0, 2.0, 3.0, 4.0]]), moment())
    assert found.tolist() == [[1.0, 2.0, 3.0, 3.0]]


def test_the_other_predictor_does_not_see_a_view() -> None:
    vectors = np.array([[0.5, 1.0, 2.0]])
    posted = FAULTS["other-predictor:risk"].posted(CONTRACT, vectors)
    assert np.array_equal(posted, [[np.nan, 1.0, 2.0]], equal_nan=True)
    assert vectors.tolist() == [[0.5, 1.0, 2.0]]


def test_noise_is_added_to_stored_features_alone() -> None:
    vectors = np.tile([0.5, 100.0, 2.0], (2_000, 1))
    found = FAULTS["noise-1pct"].vectors(CONTRACT, vectors, moment())
    assert found[:, 2].tolist() == [2.0] * 2_000
    assert np.allclose(found[:, :2].std(axis=0) / vectors[0, :2], 0.01, rtol=0.1)
    assert len(np.unique(found[:, 1])) == 2_000


def test_one_stored_feature_is_a_little_greater_in_half_of_the_requests() -> None:
    vectors, drawn = np.array([[0.5, 100.0, 2.0]]), moment()
    found = {tuple(FAULTS["factor-1.07"].vectors(CONTRACT, vectors, drawn)[0]) for _ in range(40)}
    assert found == {(0.5, 100.0, 2.0), (0.5, 107.0, 2.0)}
    assert vectors[0, 1] == 100.0


def test_a_pair_does_both_of_these_hooks_too() -> None:
    moved = Pair.of(FAULTS["next-score"], FAULTS["other-predictor:risk"])
    posted = moved.posted(CONTRACT, np.array([[0.1, 1.0, 2.0], [0.2, 3.0, 4.0]]))
    assert np.array_equal(posted, [[np.nan, 3.0, 4.0], [np.nan, 1.0, 2.0]], equal_nan=True)
    behind = Pair.of(FAULTS["torn-row:spend"], FAULTS["skipped-slot:risk"])
    then, now = reading(0.1).views["spend"], reading(0.9).views["spend"]
    then = then._replace(values={"nb_1d": [5], "nb_7d": [6]})
    assert behind.lags == {"spend": timedelta(days=1), "risk": timedelta(days=1)}
    assert behind.late("spend", now, then, {}).values == {"nb_1d": [5], "nb_7d": [0]}
    both = Pair.of(FAULTS["next-inputs"], FAULTS["absolute"])
    assert applied(both, {"cents": np.array([-1, -2])})["cents"].tolist() == [2, 1]


def test_without_a_fault_these_hooks_are_the_identity() -> None:
    clean, vectors, functions = Fault(name="clean", says="nothing"), np.array([[1.0]]), {"made": given}
    assert clean.posted(CONTRACT, vectors) is vectors
    assert clean.functions(CONTRACT, functions) is functions
    now, then = reading(0.9).views["risk"], reading(0.1).views["risk"]
    assert clean.late("risk", now, then, {}) is then

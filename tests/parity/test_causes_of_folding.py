"""Each cause of a vector, a rejection or a score that is not what was read makes, and of a view that has drifted."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from parity_case import (
    CONTRACT,
    FUNCTIONS,
    HOUR,
    KEYS,
    LAKE,
    NOW,
    PLACES,
    evidence,
    explained,
    folded,
    lake_row,
    read_of,
    score_of,
    served,
    told,
    values_of,
    with_feature,
)

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput
from lockstep.parity.cause import Cause
from lockstep.parity.compare import SAME_SCORE, is_mismatch
from lockstep.parity.expect import TrainingRows
from lockstep.parity.facts import Other, remade
from lockstep.parity.sample import ServedRow


def both(view: str, feature: str, cause: Cause) -> set[tuple[str, str, str | None, Cause]]:
    return {(kind, view, feature, cause) for kind in ("consistency", "training")}


def test_an_on_demand_feature_that_its_inputs_and_stored_values_do_not_make_is_transform() -> None:
    row = with_feature(served(), "share", "of_total", 0.123456)
    found = explained([row])[row.name]
    assert told(found) == both("share", "of_total", Cause.TRANSFORM)
    assert evidence(found, "consistency", "share", "of_total") == (
        "recomputed from the logged inputs and stored values, which are equal"
    )


def test_what_its_own_parts_do_not_make_is_found_also_where_training_agrees_with_it() -> None:
    row = with_feature(served(), "share", "of_total", 0.123456)
    agrees = TrainingRows(np.array([row.vector]), np.array([False]))
    assert told(explained([row], trained=agrees)[row.name]) == {("consistency", "share", "of_total", Cause.TRANSFORM)}


def test_a_stored_value_that_was_logged_and_another_one_put_into_the_vector_is_unexplained() -> None:
    row = with_feature(served(), "spend", "nb", 5.5)
    found = explained([row])[row.name]
    assert told(found) == both("spend", "nb", Cause.UNEXPLAINED)
    assert evidence(found, "consistency", "spend", "nb") == (
        "the stored value was logged, and another one put into the vector"
    )


def test_a_value_that_the_vector_holds_in_single_precision_is_of_another_type() -> None:
    plain = served()
    total = plain.views["spend"].values["total"]
    row = with_feature(plain, "spend", "total", float(np.float32(total)))
    found = explained([row])[row.name]
    assert told(found) == both("spend", "total", Cause.TYPE)
    assert evidence(found, "consistency", "spend", "total") == (
        f"it is {total} by the logged inputs and stored values: single precision (float32)"
    )


def test_a_tolerance_of_the_contract_lets_a_rounded_value_pass_and_no_other_feature() -> None:
    features = [f.model_copy(update={"tolerance": 0.001}) if f.name == "total" else f for f in CONTRACT.features]
    tolerant = CONTRACT.model_copy(update={"features": tuple(features)})
    rounded = [with_feature(row := served(), "spend", "total", float(np.float32(row.views["spend"].values["total"])))]
    assert explained(rounded, contract=tolerant)[rounded[0].name] == []
    other = with_feature(rounded[0], "risk", "risk_7d", float(np.float32(values_of("risk", 1, NOW)["risk_7d"])))
    assert told(explained([other], contract=tolerant)[other.name]) == both("risk", "risk_7d", Cause.TYPE)


def test_the_vector_of_another_row_of_the_process_is_a_wrong_row() -> None:
    first, second = served(1), served(2)
    taken = replace(second, vector=first.vector, score=first.score)
    found = explained([first, taken])
    assert found[first.name] == []
    assert {d.cause for d in found[taken.name]} == {Cause.WRONG_ROW}
    assert evidence(found[taken.name], "consistency", "spend", "nb") == f"the vector is that of the row {first.name}"
    apart = replace(first, process="another")
    assert Cause.WRONG_ROW not in {d.cause for d in explained([apart, taken])[taken.name]}


@pytest.mark.parametrize("moved", [5 * HOUR, -5 * HOUR])
def test_a_time_zone_is_told_by_one_move_that_makes_every_row_of_the_process(moved: int) -> None:
    rows = [served(n, request_us=served(n).request_us + n * 6 * HOUR // 10) for n in KEYS]
    wrong = [with_time(row, moved) for row in rows]
    found = explained(wrong)
    differing = [d for ds in found.values() for d in ds if d.view == "night"]
    assert {d.cause for d in differing if d.kind == "consistency"} == {Cause.CLOCK_SKEW}
    assert f"{moved / HOUR:+.2f} h away" in differing[0].evidence


def with_time(row: ServedRow, moved: int) -> ServedRow:
    vector = folded(row, moved)
    return replace(row, vector=vector, score=score_of(vector))


def test_two_rows_of_a_process_moved_by_different_times_are_no_time_zone() -> None:
    plain = [served(n, request_us=served(n).request_us + n * HOUR) for n in range(1, 7)]
    rows = [with_time(row, 5 * HOUR if n < 3 else -7 * HOUR) for n, row in enumerate(plain)]
    assert Cause.TRANSFORM in {d.cause for ds in explained(rows).values() for d in ds if d.kind == "consistency"}
    apart = [*rows[:3], *(replace(row, process="another") for row in rows[3:])]
    assert {d.cause for ds in explained(apart).values() for d in ds if d.kind == "consistency"} == {Cause.CLOCK_SKEW}


def test_a_value_that_stands_still_is_of_no_time_zone_and_neither_is_that_of_one_row() -> None:
    still = [with_feature(served(n), "night", "hour", 0.0) for n in KEYS]
    assert {d.cause for ds in explained(still).values() for d in ds} == {Cause.TRANSFORM}
    alone = with_feature(served(1), "night", "hour", 17.0)
    assert {d.cause for d in explained([alone])[alone.name]} == {Cause.TRANSFORM}


def test_a_row_that_is_rejected_and_should_not_be_or_the_other_way_round_is_unexplained() -> None:
    row = served(rejected="spend:nb", score=None)
    found = explained([row])[row.name]
    assert told(found) == {("consistency", "", None, Cause.UNEXPLAINED)}
    assert (found[0].served, found[0].expected) == ("spend:nb", None)

    asked = [f.model_copy(update={"when_null": "reject"}) if f.name == "nb" else f for f in CONTRACT.features]
    strict = CONTRACT.model_copy(update={"features": tuple(asked)})
    empty = served(key=99)
    settled = remade(strict, FUNCTIONS, [empty])
    kept = explained([empty], contract=strict, remade=settled)[empty.name]
    assert told(kept) == {("consistency", "", None, Cause.UNEXPLAINED)}
    assert (kept[0].served, kept[0].expected) == (None, "rejected")
    rejected = replace(empty, rejected="spend:nb", score=None)
    assert explained([rejected], contract=strict, remade=settled)[rejected.name] == []


# Scores and versions.


@pytest.mark.parametrize(("off", "differs"), [(SAME_SCORE * 0.9, False), (SAME_SCORE * 1.1, True)])
def test_a_score_is_the_models_but_for_the_rounding_of_a_sum(off: float, differs: bool) -> None:
    row = served(score=score_of(served().vector) + off)
    found = explained([row])[row.name]
    assert told(found) == ({("prediction", "", None, Cause.UNEXPLAINED)} if differs else set())


def test_a_score_that_is_no_number_is_not_the_models() -> None:
    row = served(score=float("nan"))
    assert told(explained([row])[row.name]) == {("prediction", "", None, Cause.UNEXPLAINED)}


def test_a_score_in_single_precision_is_of_another_type() -> None:
    row = served(score=float(np.float32(score_of(served().vector))))
    found = explained([row])[row.name]
    assert told(found) == {("prediction", "", None, Cause.TYPE)}
    assert "what the model says to this vector: single precision" in found[0].evidence


@pytest.mark.parametrize(("given", "told_"), [({"score": None}, "neither"), ({"rejected": "spend:nb"}, "both")])
def test_a_row_has_a_score_or_a_rejection(given: dict[str, str | None], told_: str) -> None:
    row = served(**given)
    assert told_ in evidence(explained([row])[row.name], "prediction", "")


def test_scores_are_not_looked_at_where_no_model_is_asked() -> None:
    row = served(score=0.123)
    assert explained([row], rescored=None)[row.name] == []


def turned(contract: FeatureContract = CONTRACT) -> FeatureContract:
    """The contract of another version: the same features in another order."""
    return contract.model_copy(update={"features": contract.features[::-1]})


OTHER = Other("version 2", turned(), Path("two"), fallback=False)


def test_a_vector_in_the_order_of_another_versions_contract_is_a_mix_of_versions() -> None:
    rows = [served(n) for n in KEYS]
    mixed = [replace(row, vector=row.vector[::-1], score=score_of(row.vector[::-1])) for row in rows]
    found = explained(mixed, others=lambda: [OTHER])
    assert {d.cause for ds in found.values() for d in ds} == {Cause.VERSION_MIX}
    assert evidence(found[mixed[0].name], "consistency", "spend", "nb") == "the vector is one of version 2"
    alone = explained(mixed)
    told = "the vector has the right values at other places, as of no contract that is registered"
    assert evidence(alone[mixed[0].name], "consistency", "spend", "nb") == told


def test_a_vector_in_which_two_values_are_exchanged_is_in_no_other_order() -> None:
    row = served()
    exchanged = replace(row, vector=(row.vector[1], row.vector[0], *row.vector[2:]))
    assert Cause.VERSION_MIX not in {d.cause for d in explained([exchanged])[row.name]}


def test_a_version_that_takes_a_feature_that_is_not_known_here_or_fewer_of_them_is_not_blamed() -> None:
    rows = [served(n) for n in KEYS]
    all_mixed = [replace(row, vector=row.vector[::-1], score=score_of(row.vector[::-1])) for row in rows]
    mixed = all_mixed[0]
    fewer = turned().model_copy(update={"features": turned().features[:-1]})
    stranger = turned().model_copy(
        update={"features": tuple(f.model_copy(update={"name": f"{f.name}_2"}) for f in turned().features)}
    )
    others = [Other("version 1", of, Path("one"), fallback=False) for of in (fewer, stranger)]
    found = explained(all_mixed, others=lambda: others)[mixed.name]
    assert {d.evidence for d in found if d.cause is Cause.VERSION_MIX and d.kind == "consistency"} == {
        "the vector has the right values at other places, as of no contract that is registered"
    }


class Weighed:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def predict_proba(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = np.array([score_of([*map(float, vector)]) * self.factor for vector in vectors])
        return np.column_stack([1 - scores, scores])


@pytest.fixture
def two_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = {
        Path("two"): SimpleNamespace(estimator=Weighed(0.5), fallback=None),
        Path("three"): SimpleNamespace(estimator=Weighed(0.75), fallback=Weighed(0.25)),
    }

    def opened(folder: Path) -> SimpleNamespace:
        if folder not in artifacts:
            raise BadInput(f"{folder} is of another release")
        return artifacts[folder]

    monkeypatch.setattr("lockstep.parity.facts.load_artifact", opened)


@pytest.mark.usefixtures("two_versions")
def test_a_score_that_another_versions_model_gives_is_a_mix_of_versions() -> None:
    others = [
        Other("version 1", CONTRACT, Path("one"), fallback=False),
        Other("version 2", turned(), Path("two"), fallback=False),
        Other("the fallback of version 3", CONTRACT, Path("three"), fallback=True),
    ]
    plain = served()
    by_two = served(1, score=score_of(plain.vector[::-1]) * 0.5)
    by_fallback = served(2, score=score_of(served(2).vector) * 0.25)
    by_nobody = served(3, score=0.4321)
    found = explained([by_two, by_fallback, by_nobody], others=lambda: others)
    assert [(d.kind, d.cause, d.evidence) for ds in found.values() for d in ds] == [
        ("prediction", Cause.VERSION_MIX, "the score is that of version 2"),
        ("prediction", Cause.VERSION_MIX, "the score is that of the fallback of version 3"),
        ("prediction", Cause.UNEXPLAINED, "the model says another score to this vector"),
    ]


def test_where_nothing_differs_no_other_version_is_opened() -> None:
    def opened() -> list[Other]:
        raise AssertionError("looked up for nothing")

    assert explained([served()], others=opened)["p/1"] == []


# Views that have drifted.


def test_of_a_stored_view_that_has_drifted_nothing_is_compared_and_each_row_fails() -> None:
    rows = [served(n) for n in KEYS]
    found = explained(rows, drifted={"spend": "view spend has the definition x now"})
    assert all(told(ds) == {("consistency", "spend", None, Cause.SCHEMA_DRIFT)} for ds in found.values())
    assert found["p/1"][0].evidence == "view spend has the definition x now"
    assert is_mismatch(found["p/1"])


def test_of_an_on_demand_view_that_has_drifted_the_vector_is_not_made_again() -> None:
    found = explained([served()], drifted={"share": "another source"}, remade=None)["p/1"]
    assert [(d.kind, d.view, d.cause, d.evidence) for d in found] == [
        ("consistency", "share", Cause.TRANSFORM, "another source")
    ]


# What training has otherwise.


def test_what_training_has_otherwise_of_the_same_stored_rows_is_unexplained_or_a_conversion() -> None:
    row = served()
    vector = [np.nan if value is None else value for value in row.vector]
    vector[PLACES["spend", "nb"]] = 3.25
    vector[PLACES["risk", "risk_7d"]] *= 60
    found = explained([row], trained=TrainingRows(np.array([vector]), np.array([False])))[row.name]
    assert told(found) == {
        ("training", "spend", "nb", Cause.UNEXPLAINED),
        ("training", "risk", "risk_7d", Cause.TYPE),
    }
    assert evidence(found, "training", "spend", "nb") == "the stored rows are the same on both sides"
    assert evidence(found, "training", "risk", "risk_7d").endswith("in training: divided by 60")


def test_a_null_is_served_as_null() -> None:
    lake = {**LAKE, "risk": [replace(r, values={**r.values, "risk_1d": None}) for r in LAKE["risk"]]}
    row = served(rows=lake)
    assert row.vector[PLACES["risk", "risk_1d"]] is None
    assert explained([row], lake)[row.name] == []
    zero = served(rows=lake, read={"risk": read_of(lake_row("risk", 1, NOW), risk_1d=0.0)})
    assert {d.cause for d in explained([zero], lake)[zero.name]} == {Cause.TYPE}

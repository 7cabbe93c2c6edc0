"""Which model answers, and what is flagged, when views are late or the store does not know."""

from typing import Any

import fraud_case
import pytest
from fraud_case import CARDS, HOUR_US, TERMINALS

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput
from lockstep.online.epoch import Epochs, Mark, ViewEpoch
from lockstep.serving.freshness import LATE, Freshness, answering_contract, freshness_of, require_filled
from lockstep.serving.refusal import Reason, Unavailable

NOW_US = 1_527_854_400_000_000
OBJECTIVE_US = 3 * HOUR_US
APART_US = 300_000_000


def epochs(incarnation: str | None = "i", **ages_us: int | None) -> Epochs:
    """Return a reading in which views have watermarks of these ages; None where nothing is committed."""
    views = {
        view: ViewEpoch(None if age is None else Mark(1, 1, 1, NOW_US - age), Mark(2, 2, 2, NOW_US))
        for view, age in ages_us.items()
    }
    return Epochs(incarnation, views)


def judged(known: Epochs, contract: FeatureContract | None = None) -> Freshness:
    return freshness_of(contract or fraud_case.contract(), known, NOW_US, APART_US)


def test_a_view_s_age_is_that_of_its_watermark() -> None:
    found = judged(epochs(cards=HOUR_US, terminals=0))

    assert (found.ages_us, found.unmet, found.flags) == ({"cards": HOUR_US, "terminals": 0}, {}, [])


@pytest.mark.parametrize(("age_us", "late"), [(OBJECTIVE_US, False), (OBJECTIVE_US + 1, True)])
def test_a_view_is_late_once_its_age_is_above_its_objective(age_us: int, late: bool) -> None:
    found = judged(epochs(cards=age_us, terminals=0))

    assert found.unmet == ({"cards": "late"} if late else {})
    assert found.flags == (["cards:late"] if late else [])


@pytest.mark.parametrize(("ahead_us", "vouched"), [(APART_US, True), (APART_US + 1, False)])
def test_a_watermark_may_be_ahead_by_as_much_as_clocks_may_be_apart(ahead_us: int, vouched: bool) -> None:
    found = judged(epochs(cards=-ahead_us, terminals=0))

    assert found.ages_us["cards"] == -ahead_us
    assert found.unmet == ({} if vouched else {"cards": "unvouched"})


def test_a_view_of_which_nothing_is_committed_is_vouched_for_by_nobody_even_while_it_is_written() -> None:
    found = judged(epochs(cards=None, terminals=0))

    assert found.ages_us == {"cards": None, "terminals": 0}
    assert found.flags == ["cards:unvouched"]
    assert judged(epochs(terminals=0)).flags == ["cards:unvouched"]


def test_a_store_without_a_name_vouches_for_nothing() -> None:
    found = judged(epochs(None, cards=HOUR_US, terminals=0))

    assert found.ages_us == {"cards": None, "terminals": None}
    assert found.flags == ["cards:unvouched", "terminals:unvouched"]


def test_a_view_that_the_contract_does_not_read_is_not_judged() -> None:
    assert judged(epochs(cards=0, terminals=0, others=OBJECTIVE_US * 9)).unmet == {}


def test_a_store_that_has_nothing_of_any_view_is_refused() -> None:
    for nothing in (Epochs("i", {}), Epochs(None, {}), Epochs("i", {"cards": ViewEpoch(), "terminals": ViewEpoch()})):
        with pytest.raises(Unavailable, match="nothing was brought online in this store") as refused:
            require_filled(fraud_case.contract(), nothing)
        assert refused.value.reason is Reason.STORE_EMPTY
        assert "compute-and-materialize" in refused.value.hint


def test_a_store_that_has_one_view_is_not_empty_and_a_contract_without_views_needs_none() -> None:
    require_filled(fraud_case.contract(), epochs(cards=OBJECTIVE_US * 99))
    # So it looks when one primary of a cluster was flushed, and the others have what it lacks.
    require_filled(fraud_case.contract(), Epochs(None, {"cards": ViewEpoch(None, Mark(1, 1, 1, 1))}))
    require_filled(fraud_case.contract(views=(), features=(), on_demand=()), Epochs(None, {}))


def hard(**changes: Any) -> FeatureContract:
    """Return the case's contract with a hard objective of the terminals."""
    views = CARDS, TERMINALS.model_copy(update={"freshness_hard": True})
    return fraud_case.contract(views=views, **changes)


def test_the_main_model_answers_while_hard_objectives_are_kept_whatever_the_soft_ones_are() -> None:
    for contract in (fraud_case.with_fallback(), hard(), fraud_case.contract()):
        assert answering_contract(contract, dict.fromkeys(["cards"], LATE)) is contract
    assert answering_contract(fraud_case.contract(), dict.fromkeys(["cards", "terminals"], LATE)).fallback is None


@pytest.mark.parametrize("how", ["late", "unvouched"])
def test_the_fallback_answers_while_a_hard_objective_is_broken(how: str) -> None:
    contract = fraud_case.with_fallback()
    known = epochs(cards=0, terminals=OBJECTIVE_US + 1 if how == "late" else None)
    found = freshness_of(contract, known, NOW_US, APART_US)

    assert found.flags == [f"terminals:{how}"]
    assert answering_contract(contract, found.unmet) is contract.fallback


def test_without_a_fallback_nobody_answers_while_a_hard_objective_is_broken() -> None:
    with pytest.raises(
        Unavailable, match="terminals is late, a hard objective is broken, and there is no fallback"
    ) as no:
        answering_contract(hard(), dict.fromkeys(["cards", "terminals"], LATE))
    assert no.value.reason is Reason.STALE_FEATURES


def test_a_fallback_that_reads_the_late_view_itself_does_not_answer() -> None:
    for forced in (False, True):
        with pytest.raises(
            Unavailable, match=r"terminals is late, .* and the fallback model reads it, too"
        ) as refused:
            answering_contract(reading_all(), dict.fromkeys(["terminals"], LATE), forced=forced)
        assert refused.value.reason is Reason.STALE_FEATURES


def reading_all() -> FeatureContract:
    """Return a contract whose fallback reads the view with the hard objective, which it does not call hard."""
    main = hard()
    fallback = main.model_copy(update={"feature_service": "fraud_v1_fallback", "views": (CARDS, TERMINALS)})
    return main.model_copy(update={"fallback": fallback})


def test_the_fallback_answers_when_it_is_asked_for() -> None:
    contract = fraud_case.with_fallback()

    assert answering_contract(contract, {}, forced=True) is contract.fallback
    assert answering_contract(contract, dict.fromkeys(["cards", "terminals"], LATE), forced=True) is contract.fallback


def test_a_fallback_that_there_is_not_cannot_be_asked_for() -> None:
    for unmet in ({}, {"terminals": LATE}):
        with pytest.raises(BadInput, match="fraud_v1 has no fallback model"):
            answering_contract(hard(), unmet, forced=True)

"""What a model owner reads on the training report, and where its charts stand."""

from typing import Any

import numpy as np
import pages
import pytest
from held_out import CHAMPION, a_week, an_evaluation, champion_of
from hypothesis import given
from hypothesis import strategies as st

from lockstep.report.charts import HEIGHT, count_marks
from lockstep.report.numbers import place, signed
from lockstep.training.charts import DAY_LABELS, SQUARE, calibration_plot, daily_chart, polyline, wilson
from lockstep.training.evaluation.calibration import calibration
from lockstep.training.evaluation.document import (
    Alarm,
    Clocks,
    Evaluation,
    Fallback,
    FeatureImportance,
    Importance,
    Interval,
    Metrics,
    ViewPrice,
)
from lockstep.training.evaluation.evaluate import Champion
from lockstep.training.page import FEATURES_TOLD, Words, headline, late, render

FRESH = Metrics(average_precision=0.612, auc=0.871, entity_precision=0.212)
SERVED = Metrics(average_precision=0.58, auc=0.86, entity_precision=0.2)
IMPORTANCE = Importance(
    rows=2_000,
    repeats=3,
    seed=0,
    features=tuple(
        FeatureImportance(view="spend", feature=f"nb_{n}d", loss=0.32 / 2**n - 0.001, deviation=0.01)
        for n in range(FEATURES_TOLD + 2)
    ),
)
WHOLE = an_evaluation(
    champion=champion_of(a_week()),
    clocks=Clocks(
        metrics={"served": SERVED, "exact": FRESH},
        prices=(
            ViewPrice(view="risk", late_s=21_600.0, average_precision=0.03),
            ViewPrice(view="pulse", late_s=45.0, average_precision=-0.001),
        ),
    ),
    fallback=Fallback(
        model=CHAMPION,
        service="fraud_fallback",
        features=("tx_amount", "tx_during_night"),
        metrics=Metrics(average_precision=0.31, auc=0.78, entity_precision=0.11),
    ),
    importance=IMPORTANCE,
)
BARE = an_evaluation()
ALARM = Alarm(name="one_feature", subject="risk:risk_7d", evidence="AUC 0.999 alone")
WORDS = Words(rows="payments", positives="frauds", entities="cards", groups={1: "large amount"})


def page_of(evaluation: Evaluation, words: Words = WORDS) -> pages.Page:
    return pages.Page(render(evaluation, title="How good the challenger is", words=words))


def with_difference(low: float, high: float) -> Evaluation:
    compared = WHOLE.comparison
    estimate = compared.average_precision.model_copy(update={"interval": Interval(low=low, high=high, replicates=50)})
    return WHOLE.model_copy(update={"comparison": compared.model_copy(update={"average_precision": estimate})})


def plain_spaces(text: str) -> str:
    return text.replace("\N{NARROW NO-BREAK SPACE}", " ").replace("\N{NO-BREAK SPACE}", " ")


def test_the_first_thing_said_is_whether_the_model_is_better_than_the_one_in_use() -> None:
    found = WHOLE.comparison.average_precision
    assert found.interval is not None
    assert plain_spaces(page_of(WHOLE).texts(".//h2")[0]) == (
        f"Better than version 3: average precision {WHOLE.performance.average_precision.value:.3f} against "
        f"{WHOLE.comparison.metrics.average_precision:.3f} (95 % interval of the difference: "
        f"+{found.interval.low:.3f} to +{found.interval.high:.3f})"
    )


@pytest.mark.parametrize(
    ("evaluation", "sign", "happens"),
    [
        (with_difference(0.001, 0.2), "pass", "Better than version 3"),
        (with_difference(-0.2, -0.001), "fail", "Worse than version 3"),
        (with_difference(-0.1, 0.1), "not_enough_evidence", "Not told apart from version 3"),
        (BARE, "pass", "Better than a guess"),
        (BARE.model_copy(update={"alarms": (ALARM,)}), "fail", "Not to be trusted"),
    ],
)
def test_the_headline_follows_alarms_first_and_then_the_interval(
    evaluation: Evaluation, sign: str, happens: str
) -> None:
    said = headline(evaluation)
    assert (said.sign, said.happens) == (sign, happens)


def test_of_one_entity_nothing_is_claimed() -> None:
    compared = BARE.comparison
    estimate = compared.average_precision.model_copy(update={"interval": None})
    alone = BARE.model_copy(update={"comparison": compared.model_copy(update={"average_precision": estimate})})
    assert headline(alone).happens == "Cannot be judged"
    assert "(unknown)" in page_of(alone).part("Against a guess")


def test_a_champion_that_could_not_be_compared_with_is_not_passed_over_in_silence() -> None:
    compared = BARE.comparison.model_copy(update={"incomparable": "version 3 takes features that are gone"})
    page = page_of(BARE.model_copy(update={"comparison": compared}))
    assert page.texts(".//ul[@class='reasons']/li") == [
        "not compared with the champion: version 3 takes features that are gone"
    ]
    assert not page_of(WHOLE).texts(".//ul[@class='reasons']/li")


def test_alarms_come_before_everything_else_with_their_evidence() -> None:
    page = page_of(BARE.model_copy(update={"alarms": (ALARM, ALARM)}))
    assert page.texts(".//h2")[0].endswith("but 2 alarms say that it may be too good to be true")
    assert page.texts(".//h3")[0] == "Alarms"
    assert "one_feature risk:risk_7d AUC 0.999 alone" in page.part("Alarms")
    assert "Alarms" not in page_of(BARE).texts(".//h3")


def test_the_three_metrics_stand_beside_the_champions_with_intervals() -> None:
    page, performance, compared = page_of(WHOLE), WHOLE.performance, WHOLE.comparison
    rows = page.texts(".//table[@class='metrics']/tbody/tr")
    interval, difference = performance.auc.interval, compared.auc.interval
    assert interval is not None
    assert difference is not None
    assert rows[1] == (
        f"AUC how often a positive is ranked above a negative {performance.auc.value:.3f} "
        f"({interval.low:.3f} to {interval.high:.3f}) {compared.metrics.auc:.3f} "
        f"{signed(compared.auc.value)} ({signed(difference.low)} to {signed(difference.high)})"
    )
    places = [span.get("style") for span in page.root.findall(".//div[@class='strip']/span[@class='model']")]
    assert places[1] == f"left:{place(100 * performance.auc.value)}%"


def test_what_is_found_in_a_day_is_said_in_entities_and_drawn_by_day() -> None:
    page, daily = page_of(WHOLE), WHOLE.performance.daily
    part = page.part("A day's top 20")
    assert f"Who looks at the 20 cards with the highest scores each day finds {20 * daily.precision:.1f}" in part
    assert f"A perfect ranking finds {20 * daily.ceiling:.1f}, a guess {20 * daily.no_skill:.1f}." in part
    tips = [tip.text for tip in page.root.iterfind(".//div[@class='chart lone']/svg/g/title")]
    first = daily.days[0]
    assert len(tips) == 7
    assert tips[0] == f"18 Jun 2018: {first.found} of {first.positives} positive cards found, among {first.entities}"


def test_kinds_are_called_what_the_use_case_calls_them_and_others_by_their_number() -> None:
    rows = page_of(WHOLE).texts(".//table[@class='bars two']/tbody/tr")
    first = WHOLE.performance.groups[0]
    assert plain_spaces(rows[0]).startswith(f"large amount {first.positives} frauds")
    assert rows[1].startswith("kind 2 ")
    at = WHOLE.performance.decision
    assert f"{at.found} of the {at.positives} frauds are among them" in page_of(WHOLE).part("What is found")


def test_the_most_important_features_are_drawn_and_the_others_named() -> None:
    page = page_of(WHOLE)
    part = page.part("What it leans on")
    assert "nb_0d spend 0.319 ± 0.010" in part
    assert "2 more lose at most \N{MINUS SIGN}0.001: nb_12d, nb_13d." in part
    table = page.root.findall(".//table[@class='bars']")[0]
    widths = [span.get("style") for span in table.iterfind(".//span[@class='length']/span")]
    assert (len(widths), widths[0], widths[-1]) == (FEATURES_TOLD, "width:100%", "width:0%")


def test_being_late_is_priced_by_view() -> None:
    part = page_of(WHOLE).part("What being late costs")
    assert "exact 0.612 0.871 0.212 served 0.580 0.860 0.200" in part
    assert "risk 6 h late 0.030 pulse 45 s late \N{MINUS SIGN}0.001" in part


def test_the_fallback_stands_beside_the_model() -> None:
    part = page_of(WHOLE).part("The fallback")
    assert "fraud_fallback, with 2 features." in part
    assert "fallback 0.310 0.780 0.110" in part
    assert part.endswith("It takes tx_amount, tx_during_night.")


def test_what_it_was_trained_on_is_told_with_spans_and_snapshots() -> None:
    part = plain_spaces(page_of(WHOLE).part("What it learned from"))
    assert "12,000 payments from 21 May 2018 00:00 UTC to 18 Jun 2018 00:00 UTC, 400 of them frauds (3.3 %)" in part
    assert "Left out100 payments: their entity was known 1,200 payments: their event lies between the two" in part
    assert "nobody" not in part
    assert part.endswith(f"spend 7, transactions {2**62}")


def test_the_small_print_names_everything_by_its_hash() -> None:
    (footer,) = page_of(WHOLE).texts(".//footer")
    for known in (WHOLE.hash, WHOLE.model.digest, WHOLE.model.contract, CHAMPION.digest, "50 replicates"):
        assert known in footer


def test_what_nobody_looked_at_has_no_part() -> None:
    headings = page_of(BARE, Words()).texts(".//h3")
    assert "What it learned from" in headings
    assert not {"Alarms", "What it leans on", "What being late costs", "The fallback"} & set(headings)


def test_no_value_becomes_markup() -> None:
    evil = "<script>alert('&amp;')</script>"
    feature = FeatureImportance(view=evil, feature=evil, loss=0.0, deviation=0.0)
    price = ViewPrice(view=evil, late_s=1.0, average_precision=0.0)
    evaluation = WHOLE.model_copy(
        update={
            "alarms": (Alarm(name=evil, subject=evil, evidence=evil),),
            "model": WHOLE.model.model_copy(update={"name": evil, "digest": evil}),
            "training_set": WHOLE.training_set.model_copy(update={"table": evil, "snapshots": {evil: 1}}),
            "importance": IMPORTANCE.model_copy(update={"features": (feature,)}),
            "clocks": Clocks(metrics={evil: FRESH}, prices=(price,)),
            "fallback": Fallback(model=CHAMPION, service=evil, features=(evil,), metrics=FRESH),
        }
    )
    page = page_of(evaluation, Words(rows=evil, positives=evil, entities=evil, groups={1: evil, 2: evil, 3: evil}))
    assert page.root.find(".//script") is None
    assert page.part("Alarms") == f"Alarms {evil} {evil} {evil}"


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    for evaluation in (WHOLE, BARE):
        page_of(evaluation).require_passive()


def test_the_same_evaluation_gives_the_same_bytes_also_when_it_was_kept_as_json() -> None:
    again = Evaluation.model_validate_json(WHOLE.to_json())
    assert page_of(WHOLE).html == page_of(again).html


def test_a_curve_is_drawn_from_the_lower_left() -> None:
    assert polyline(((0.0, 0.0), (0.25, 0.5), (1.0, 1.0))) == "0,100 25,50 100,0"


def test_columns_are_as_high_as_what_was_found_and_missed() -> None:
    daily = WHOLE.performance.daily
    chart = daily_chart(daily, "cards")
    reachable = [min(day.positives, daily.top) for day in daily.days]
    for column, day, could in zip(chart.columns, daily.days, reachable, strict=True):
        by_kind = {layer.kind: layer.height for layer in column.layers}
        assert by_kind.get("found", 0) == pytest.approx(HEIGHT * day.found / max(reachable))
        assert by_kind.get("missed", 0) == pytest.approx(HEIGHT * (could - day.found) / max(reachable))
    many = daily.model_copy(update={"days": daily.days * 9})
    assert len(daily_chart(many, "cards").x_marks) <= DAY_LABELS
    assert chart.y_marks == count_marks(max(reachable))


def test_a_calibrated_model_lies_on_the_diagonal_and_each_spot_within_its_whisker() -> None:
    week = a_week()
    plot = calibration_plot(calibration(week.with_scores(np.where(week.labels == 1, 0.9, 0.1))))
    assert [(spot.x, spot.y) for spot in plot.spots] == [
        (pytest.approx(700 / 15), SQUARE),
        (pytest.approx(1100 / 15), 0),
    ]
    assert [mark.label[:2] for mark in plot.x_marks] == ["0.", "1\N{NARROW NO-BREAK SPACE}", "10", "50", "90", "99"]
    for spot in calibration_plot(WHOLE.performance.calibration).spots:
        assert 0 <= spot.top <= spot.y <= spot.bottom <= SQUARE
    middle = {mark.label[:2]: mark.at for mark in plot.x_marks}["50"]
    assert middle == pytest.approx(60)


@given(st.integers(1, 10_000), st.data())
def test_wilsons_interval_is_where_the_share_would_just_be_plausible(rows: int, data: st.DataObject) -> None:
    positives = data.draw(st.integers(0, rows))
    share = positives / rows
    for bound in wilson(positives, rows):
        if 1e-9 < bound < 1 - 1e-9:
            assert abs(share - bound) == pytest.approx(1.96 * np.sqrt(bound * (1 - bound) / rows), rel=1e-6)


@pytest.mark.parametrize(
    ("seconds", "written"), [(0.5, "0.5 s"), (45, "45 s"), (90, "1.5 min"), (21_600, "6 h"), (172_800, "2 d")]
)
def test_how_late_is_written_in_the_unit_that_fits(seconds: float, written: str) -> None:
    assert late(seconds) == written


@pytest.mark.parametrize(
    ("number", "written"), [(0.0214, "+0.021"), (-0.0214, "\N{MINUS SIGN}0.021"), (0, "0.000"), (-0.0001, "0.000")]
)
def test_a_difference_has_its_sign(number: float, written: str) -> None:
    assert signed(number) == written


def test_a_champion_without_a_number_is_called_the_champion() -> None:
    nameless: Any = Champion(CHAMPION.model_copy(update={"version": None}), champion_of(a_week()).scores)
    assert headline(an_evaluation(champion=nameless)).happens == "Better than the champion"

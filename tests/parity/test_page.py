"""What a person reads on the parity page, and what never happens to them there."""

import random
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pages
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import said

from lockstep.clock import parse_time
from lockstep.parity.cause import Cause
from lockstep.parity.charts import hour_chart, score_chart
from lockstep.parity.page import CAUSE_WORDS, EXAMPLES_TOLD, Quality, QualityBar, render
from lockstep.parity.report import (
    DifferenceFound,
    FeatureRate,
    HourCompared,
    ModelNamed,
    ParityReport,
    Sampled,
    ScoreShift,
    Stratum,
)
from lockstep.parity.verdict import Verdict, upper_bound
from lockstep.report.charts import HEIGHT, Column
from lockstep.report.numbers import percent, percent_above

BEGIN = parse_time("2018-06-24T00:00:00Z")
HOURS = 168
FEATURES = {
    "transaction_context": (
        *("tx_amount", "tx_during_weekend", "tx_during_night"),
        *(f"customer_{what}_{days}d" for what in ("nb_tx", "avg_amount") for days in (1, 7, 30)),
    ),
    "terminal_risk": tuple(f"{what}_{days}d" for days in (1, 7, 30) for what in ("nb_tx", "risk")),
    "card_velocity": ("nb_tx_10m", "nb_tx_1h", "amount_1h", "nb_terminals_1d", "minutes_since_last"),
    "terminal_pulse": ("nb_tx_1h", "nb_cards_1h", "avg_amount_1d", "max_amount_1d"),
}
QUALITY = Quality(
    days=7,
    rows=67_240,
    row_name="payments",
    positives=512,
    positive_name="frauds",
    bars=(
        QualityBar("payment alone", 0.31, 0.78),
        QualityBar("with feature views", 0.62, 0.91, "version 2, promoted"),
        QualityBar("the same model, one column misread", 0.41, 0.83, "what version 3 would have served"),
    ),
)


def a_week(*, version: int = 2, misread: bool = False, uniform: int = 400) -> ParityReport:
    """A week of 400 sampled rows and some of each hour; where it is misread, `risk_7d` differs in about half of them."""
    chance = random.Random(7)
    wrong = [misread and chance.random() < 0.52 for _ in range(uniform)]
    mismatches = sum(wrong)
    rows_of = [5 + chance.randrange(4) for _ in range(HOURS)]
    hours = tuple(
        HourCompared(
            hour=BEGIN + timedelta(hours=n),
            rows=rows,
            mismatches=sum(misread and chance.random() < 0.52 for _ in range(rows)),
            excused=0,
        )
        for n, rows in enumerate(rows_of)
    )
    expected = [min(0.97, chance.betavariate(0.4, 14) + (chance.random() < 0.03) * chance.random()) for _ in wrong]
    served = [
        max(0.0, min(0.99, score + chance.gauss(0.06, 0.18))) if w else score
        for score, w in zip(expected, wrong, strict=True)
    ]
    strata = [
        Stratum(name=f"hour {hour.hour:%Y-%m-%dT%H}Z", rows=5, mismatches=min(5, hour.mismatches)) for hour in hours
    ] + [
        Stratum(name=name, rows=5, mismatches=bad if misread else 0)
        for name, bad in (
            ("flag customer_spend:missing", 2),
            ("view customer_spend missing", 2),
            ("view customer_spend present", 3),
            ("view terminal_risk missing", 0),
            ("view terminal_risk present", 3),
        )
    ]
    stratum_mismatches = sum(stratum.mismatches for stratum in strata)
    failing = (
        f"{stratum_mismatches} rows of the stratified sample are mismatches",
        f"{mismatches} of {uniform} sampled rows are mismatches",
    )
    return ParityReport(
        project="fraud",
        created=BEGIN + timedelta(hours=HOURS, minutes=20),
        model=ModelNamed(name="fraud", version=version, digest=f"{version}d7e" * 16, contract=f"{version}c0a" * 16),
        shadow=True,
        since=BEGIN,
        until=BEGIN + timedelta(hours=HOURS),
        sample=Sampled(served=6_720, uniform=uniform, required=299, stratified=861, compared_values=43_054, seed=1),
        read={},
        ledger={},
        rejected=0,
        foreign=0,
        limit=0.01,
        confidence=0.95,
        mismatches=mismatches,
        excused=0,
        stratum_mismatches=stratum_mismatches,
        lost=0.0,
        present={"customer_spend": 388, "terminal_risk": 371},
        intervals={"customer_spend": 168, "terminal_risk": 168},
        upper_bound=upper_bound(mismatches, uniform, 0.95),
        verdict=Verdict.FAIL if misread else Verdict.PASS,
        reasons=failing if misread else (),
        features=tuple(
            FeatureRate(
                name=name,
                view=view,
                compared=uniform,
                differing=mismatches * ((view, name) == ("terminal_risk", "risk_7d")),
                causes={"wrong_row": mismatches}
                if mismatches and (view, name) == ("terminal_risk", "risk_7d")
                else {},
            )
            for view, names in FEATURES.items()
            for name in names
        ),
        strata=tuple(strata),
        causes={"wrong_row": 2 * sum(hour.mismatches for hour in hours)} if misread else {},
        differences=tuple(
            a_difference(row=f"lockstep-dark-41-9c1f0a7e/{17 * n + 3}", served=was, expected=expected)
            for n, (was, expected) in enumerate(((0.0, 0.25), (1.0, 0.07692307692307693), (0.5, 0.125), (0.0, 0.2)))
        )
        * misread,
        hours=hours,
        scores=ScoreShift.between(served, expected, 0.5),
    )


def a_difference(**changes: Any) -> DifferenceFound:
    fields: dict[str, Any] = {
        "row": "p/1",
        "kind": "training",
        "view": "terminal_risk",
        "feature": "risk_7d",
        "served": 0.0,
        "expected": 0.25,
        "cause": "wrong_row",
        "evidence": "risk_7d holds the value of risk_1d, in every compared row of this process that the lake holds",
    }
    return DifferenceFound(**(fields | changes))


PASSED, REFUSED = a_week(), a_week(version=3, misread=True)
EMPTY = PASSED.model_copy(
    update={
        "sample": Sampled(served=0, uniform=0, required=299, stratified=0, compared_values=0, seed=1),
        "verdict": Verdict.NOT_ENOUGH_EVIDENCE,
        "upper_bound": 1.0,
        "reasons": ("0 sampled rows, 299 needed to exclude 1.00%", "terminal_risk: 0 sampled rows hold a value"),
        "features": tuple(rate.model_copy(update={"compared": 0}) for rate in PASSED.features),
        "present": {},
        "intervals": {},
        "hours": (),
        "strata": (),
        "scores": None,
    }
)


class Page(pages.Page):
    def __init__(self, *reports: ParityReport, title: str = "Parity", quality: Quality | None = None) -> None:
        super().__init__(render(reports, title=title, quality=quality))


def test_the_first_thing_said_is_the_verdict_of_each_report() -> None:
    page = Page(PASSED, REFUSED)
    assert said(page.root.find("body/main/article")).startswith(
        "Version 2 passes: 0 mismatches in 400 rows, so at 95 % confidence fewer than 0.75 % differ"
    )
    assert page.texts(".//article/header//h2") == [
        "Version 2 passes: 0 mismatches in 400 rows, so at 95 % confidence fewer than 0.75 % differ",
        f"Version 3 is refused: {REFUSED.mismatches} of 400 sampled rows are mismatches",
    ]
    assert page.texts(".//nav//a") == ["Version 2 passes", "Version 3 is refused"]


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (
            PASSED.model_copy(update={"mismatches": 1, "upper_bound": 0.00473, "limit": 0.01}),
            "Version 2 passes: 1 mismatch in 400 rows, so at 95 % confidence fewer than 0.48 % differ",
        ),
        (
            REFUSED.model_copy(update={"mismatches": 0, "upper_bound": 0.0075, "stratum_mismatches": 2}),
            "Version 3 is refused: 2 rows of the stratified sample are mismatches",
        ),
        (EMPTY, "Version 2 cannot be judged yet: 0 sampled rows, 299 needed to exclude 1.00%"),
    ],
)
def test_the_verdict_says_what_it_stands_on(report: ParityReport, verdict: str) -> None:
    assert Page(report).texts(".//h2")[0] == verdict


def test_every_reason_is_given_once() -> None:
    page = Page(REFUSED, EMPTY)
    assert page.texts(".//header//ul[@class='reasons']/li") == [
        f"{REFUSED.stratum_mismatches} rows of the stratified sample are mismatches",
        "terminal_risk: 0 sampled rows hold a value",
    ]


def test_what_differs_is_named_with_its_view_cause_share_evidence_and_examples() -> None:
    part = Page(REFUSED).part("What differs, and why")
    share = percent(REFUSED.mismatches / 400).replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert f"risk_7d of terminal_risk wrong_row {REFUSED.mismatches} of 400 rows ({share})" in part
    assert CAUSE_WORDS["wrong_row"] in part
    assert "risk_7d holds the value of risk_1d, in every compared row of this process that the lake holds" in part
    assert "0 → 0.25 lockstep-dark-41-9c1f0a7e/3" in part
    assert part.count("lockstep-dark-41-9c1f0a7e/") == EXAMPLES_TOLD


def test_the_feature_that_differs_stands_above_those_that_agree_and_none_is_left_out() -> None:
    page = Page(REFUSED)
    part = page.part("Agreement by feature")
    assert f"risk_7d terminal_risk wrong_row {REFUSED.mismatches} {REFUSED.mismatches}" in part
    assert part.index("risk_7d") < part.index("23 other features agree in all 400 rows.")
    agreeing = page.texts(".//dl[@class='agreeing']//code")
    assert sorted(agreeing) == sorted(n for names in FEATURES.values() for n in names if n != "risk_7d")


def test_nothing_differs_is_said_quietly() -> None:
    page = Page(PASSED)
    assert page.part("What differs, and why").endswith("Nothing differs.")
    assert page.part("Agreement by feature").startswith("Agreement by feature 24 features agree in all 400 rows.")
    assert page.part("Differences over time").startswith("Differences over time No mismatch in any of 168 hours.")
    assert "none would have been decided otherwise at 0.5" in page.part("Score shift")
    assert "None of 173" in page.part("Strata with mismatches")


def test_the_hours_say_since_when_and_the_chart_shows_each() -> None:
    hours = [
        HourCompared(hour=BEGIN + timedelta(hours=n), rows=6, mismatches=2 * (n > 30), excused=1) for n in range(50)
    ]
    page = Page(REFUSED.model_copy(update={"hours": tuple(hours)}))
    assert "Mismatches in 19 of 50 hours: the first of them begins 25 Jun 2018 07:00 UTC" in page.part(
        "Differences over time"
    )
    charts = page.root.findall(".//svg[@role='img']")
    assert charts[0].findtext("title") == "Compared rows over time: 38 mismatches, 50 excused, 212 equal"
    tips = [tip.text for tip in charts[0].iterfind("g/title")]
    assert len(tips) == 50
    assert tips[31] == "the hour from 25 Jun 2018 07:00 UTC: 2 mismatches, 1 excused, 3 equal"


def test_the_score_shift_says_how_many_decisions_change() -> None:
    part = Page(REFUSED).part("Score shift")
    assert REFUSED.scores is not None
    assert REFUSED.scores.flipped > 1
    assert f"{REFUSED.scores.flipped} rows would have been decided otherwise at 0.5." in part
    assert f"{REFUSED.scores.changed} of 400 rows got another score" in part


def test_strata_with_mismatches_are_listed_and_many_hours_are_one_line() -> None:
    rows = Page(REFUSED).texts(".//table[@class='strata']/tbody/tr")
    assert rows[0] == "flag customer_spend:missing 2 of 5"
    assert len(rows) == 5
    assert re.fullmatch(r"\d+ of 168 hours \d+ of \d+", rows[-1])


def test_the_small_print_names_the_report_the_model_and_the_contract_by_their_hashes() -> None:
    (footer,) = Page(REFUSED).texts(".//footer")
    for known in (REFUSED.hash, REFUSED.model.digest, REFUSED.model.contract, "6,720 served", "1 Jul 2018 00:20 UTC"):
        assert known in footer


def test_models_are_held_against_each_other_as_bars() -> None:
    page = Page(REFUSED, quality=QUALITY)
    (table,) = page.root.iterfind(".//section[@class='quality part']//table")
    assert said(table.find("caption")) == (
        "Average precision on 7 days served: 67,240 payments, 512 frauds; a guess reaches 0.008"
    )
    assert [said(row) for row in table.iterfind("tbody/tr")] == [
        "payment alone 0.31 0.78",
        "with feature views version 2, promoted 0.62 0.91",
        "the same model, one column misread what version 3 would have served 0.41 0.83",
    ]
    assert [bar.get("style") for bar in table.iterfind(".//span[@class='length']/span")] == [
        "width:31%",
        "width:62%",
        "width:41%",
    ]


def test_one_held_out_day_is_a_day() -> None:
    quality = Quality(days=1, rows=1_468, row_name="requests", positives=22, positive_name="frauds", bars=())
    caption = "Average precision on 1 day served: 1,468 requests, 22 frauds; a guess reaches 0.015"
    assert Page(PASSED, quality=quality).texts(".//section[@class='quality part']//caption") == [caption]


def test_a_report_about_no_row_is_a_page_too() -> None:
    page = Page(EMPTY)
    assert page.part("What differs, and why").endswith("No row was compared.")
    assert page.part("Agreement by feature").endswith("nothing is known of 24 features.")
    assert page.part("Score shift").endswith("No scores were compared.")
    assert "Differences over time" not in page.html


def test_a_report_without_scores_is_a_page_too() -> None:
    assert "No scores were compared." in Page(REFUSED.model_copy(update={"scores": None})).part("Score shift")


def test_no_value_becomes_markup() -> None:
    evil = "<script>alert('&amp;')</script>"
    rate = FeatureRate(name=evil, view=evil, compared=400, differing=3, causes={evil: 3})
    report = REFUSED.model_copy(
        update={
            "project": evil,
            "model": REFUSED.model.model_copy(update={"name": evil}),
            "reasons": (evil,),
            "features": (rate, rate.model_copy(update={"differing": 0, "causes": {}})),
            "strata": (Stratum(name=evil, rows=5, mismatches=1),),
            "present": {evil: 1},
            "differences": (
                a_difference(row=evil, feature=evil, view=evil, cause=evil, evidence=evil, served=evil, expected=None),
            ),
        }
    )
    bars = (QualityBar(evil, 0.5, 0.5, evil),)
    quality = Quality(days=1, rows=1, positives=1, positive_name=evil, row_name=evil, bars=bars)
    page = Page(report, title=evil, quality=quality)
    assert page.root.find(".//script") is None
    assert page.texts("head/title") == [evil]
    assert f"{evil} of {evil} {evil} 3 of 400 rows" in page.part("What differs, and why")
    assert page.part("What differs, and why").endswith(f"{evil} → no value {evil}")


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = Page(PASSED, REFUSED, EMPTY, quality=QUALITY)
    page.require_passive()


def test_the_same_reports_give_the_same_bytes_also_when_they_come_from_the_lake() -> None:
    again = [ParityReport.model_validate_json(report.to_json()) for report in (PASSED, REFUSED)]
    assert Page(PASSED, REFUSED, quality=QUALITY).html == Page(*again, quality=QUALITY).html


def differing(**causes: dict[str, int]) -> tuple[FeatureRate, ...]:
    return tuple(
        FeatureRate(name=name, view="spend", compared=400, differing=max(given.values()), causes=given)
        for name, given in causes.items()
    )


def test_mismatches_come_before_what_is_excused_and_many_rows_before_few() -> None:
    page = Page(
        REFUSED.model_copy(
            update={
                "features": differing(a={"early": 90}, b={"missing": 2}, c={"corruption": 30, "late": 1}),
                "differences": (a_difference(view="spend", feature="a", cause="early"),),
            }
        )
    )
    assert page.texts(".//h4") == [
        "c of spend corruption",
        "b of spend missing",
        "a of spend early",
        "c of spend late",
    ]
    assert "90 of 400 rows (22.5 %): " + CAUSE_WORDS["early"] + ". Excused." in page.part("What differs, and why")
    assert page.texts(".//table[@class='features']/tbody/tr") == [
        "c spend corruption 30, late 1 30 7.5 %",
        "b spend missing 2 2 0.5 %",
        "a spend early 90 90 22.5 %",
    ]


def test_a_stored_row_is_shown_by_the_columns_that_differ_or_by_its_event_time() -> None:
    page = Page(
        PASSED.model_copy(
            update={
                "differences": (
                    a_difference(
                        feature=None,
                        cause="corruption",
                        served={"nb": 3, "risk": 0.5},
                        expected={"nb": 3, "risk": 0.25},
                    ),
                    a_difference(feature=None, cause="missing", served=None, expected=1_530_144_000_000_000),
                )
            }
        )
    )
    part = page.part("What differs, and why")
    assert "A stored row of terminal_risk corruption" in part
    assert "risk 0.5 → risk 0.25" in part
    assert "no value → row of 28 Jun 2018 00:00 UTC" in part


def test_a_stored_row_is_not_named_where_a_feature_of_its_view_is() -> None:
    row = a_difference(kind="consistency", feature=None, served={"risk_7d": 0.5}, expected={"risk_7d": 0.25})
    page = Page(REFUSED.model_copy(update={"differences": (row, *REFUSED.differences)}))
    assert page.texts(".//h4") == ["risk_7d of terminal_risk wrong_row"]


def test_two_values_that_differ_are_never_written_alike() -> None:
    page = Page(REFUSED.model_copy(update={"differences": (a_difference(served=1 / 3, expected=1 / 3 + 1e-12),)}))
    assert "0.3333333333333333 → 0.3333333333343333" in page.part("What differs, and why")


def test_every_cause_has_words() -> None:
    assert {cause.value for cause in Cause} <= set(CAUSE_WORDS)


@pytest.mark.parametrize(
    ("share", "written"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.9999, "99.9 %"),
        (0.00001, "under 0.01 %"),
        (0.0075, "0.75 %"),
        (0.558, "55.8 %"),
    ],
)
def test_a_share_is_written_as_all_or_nothing_only_if_it_is(share: float, written: str) -> None:
    assert percent(share).replace("\N{NARROW NO-BREAK SPACE}", " ") == written


@given(st.floats(0, 1))
def test_an_upper_bound_is_never_written_smaller_than_it_is(bound: float) -> None:
    assert float(percent_above(bound).split()[0]) >= 100 * bound - 1e-7


def height(column: Column) -> float:
    return sum(layer.height for layer in column.layers)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=400), st.integers(1, 40))
def test_a_column_may_stand_for_many_hours_and_no_row_is_lost(rows: Sequence[int], most: int) -> None:
    hours = [
        HourCompared(hour=BEGIN + timedelta(hours=n), rows=r, mismatches=0, excused=0) for n, r in enumerate(rows)
    ]
    chart = hour_chart(hours, columns=most, labels=4)
    assert len(chart.columns) <= most
    counted = [int(column.says.split()[-2].replace(",", "")) for column in chart.columns]
    assert sum(counted) == sum(rows)
    for column, count in zip(chart.columns, counted, strict=True):
        assert height(column) == pytest.approx(HEIGHT * count / max(counted))
    assert len(chart.x_marks) <= 4
    assert all(0 <= mark.at < 100 for mark in chart.x_marks)
    assert len(chart.y_marks) <= 5


def test_one_mismatch_among_ten_thousand_rows_is_seen() -> None:
    (column,) = hour_chart(
        [HourCompared(hour=BEGIN, rows=10_000, mismatches=1, excused=0)], columns=9, labels=4
    ).columns
    assert [(layer.kind, layer.height >= 2) for layer in column.layers] == [("mismatch", True), ("equal", True)]
    assert height(column) == pytest.approx(HEIGHT)


def test_a_rare_high_score_is_seen_beside_many_low_ones() -> None:
    shift = ScoreShift.between([0.01] * 999 + [0.99], [0.01] * 1_000, threshold=0.5)
    assert shift is not None
    chart = score_chart(shift)
    assert height(chart.columns[0]) == HEIGHT
    assert height(chart.columns[-1]) == 0
    (top,) = [line.y1 for line in chart.outline if line.x1 == 95 and line.x2 == 100]
    assert HEIGHT - top == pytest.approx(HEIGHT * 0.1, rel=0.01)
    assert [mark.label for mark in chart.y_marks] == ["0", "1", "10", "100", "1,000"]

"""The laboratory's page, table and summary: faults held out are told apart from those that the classifier was written with."""

from dataclasses import replace
from datetime import timedelta

import pytest

from lockstep.clock import parse_time
from lockstep.skew.detection import AtSize, Detection, Sample, at_size
from lockstep.skew.fault import Fault, Pair
from lockstep.skew.harm import Harm
from lockstep.skew.laboratory import CLEAN, Result, Results, Scale
from lockstep.skew.page import page
from lockstep.skew.table import document, summary


def result(fault: Fault, found: int, right: int, changed: float = 0.5, of_stratum: float = 0.5) -> Result:
    harm = Harm(rows=100, answered=1.0, fell_back=0.0, changed=changed, moved=0, flipped=0.1, clean=None, faulty=None)
    at = AtSize(size=50, seeds=10, found=found, with_strata=found, right=right)
    detection = Detection(
        pool=100, of_fallback=False, mismatches=found / 100, named={}, sizes=(at,), of_stratum=of_stratum
    )
    return Result(fault, harm, {}, detection)


KNOWN = Fault(name="known", says="what was at hand", causes=frozenset({"missing"}))
NEW = Fault(name="new", says="what was not", causes=frozenset({"type"}), held_out=True)
RESULTS = Results(
    version=1,
    digest="d",
    start=parse_time("2018-06-01T00:00:00Z"),
    end=parse_time("2018-06-08T00:00:00Z"),
    rows=100,
    positives=1,
    top=10,
    threshold=0.5,
    apart=timedelta(minutes=30),
    scale=Scale(),
    seconds=1.0,
    results=(result(CLEAN, 0, 0), result(KNOWN, 10, 9), result(NEW, 8, 2)),
)


def test_faults_held_out_have_a_table_of_their_own_and_are_described_with_all_others() -> None:
    known, held_out = page(RESULTS, "skew-lab.svg", "lockstep skew all").split("## Faults held out")
    table, described = held_out.split("## What each fault is")
    assert ("| known |" in known, "| known |" in table, "| known |" in described) == (True, False, True)
    assert ("| new |" in known, "| new |" in table, "| new |" in described) == (False, True, True)
    assert ("| clean |" in known, "| clean |" in table) == (True, False)


def test_the_summary_counts_them_apart() -> None:
    _, known, held_out, missed = summary(RESULTS)
    assert "of faults that touch 5% of the rows" in known
    assert "90.0% (9 of 10) of all detections" in known
    assert "of faults held out that touch" in held_out
    assert "80.0% (8 of 10) were found" in held_out
    assert "25.0% (2 of 8) of all detections" in held_out
    assert missed == "never found although it has causes: none"


def test_a_fault_that_touches_enough_rows_counts_although_parity_is_silent_of_it() -> None:
    silent = result(replace(KNOWN, name="silent"), 0, 0, changed=1.0)
    rare = result(replace(KNOWN, name="rare"), 0, 0, changed=0.01, of_stratum=0.2)
    rarer = result(replace(KNOWN, name="rarer"), 0, 0, changed=0.01, of_stratum=0.04)
    right_for_the_lake = result(replace(KNOWN, name="late", causes=frozenset()), 0, 0, changed=1.0)
    results = (*RESULTS.results[:2], silent, rare, rarer, right_for_the_lake)
    _, known, missed = summary(replace(RESULTS, results=results))
    assert "50.0% (10 of 20) were found" in known
    assert "of any stratum 33.3% (10 of 30)" in known
    silent_told = (
        "silent (touches 100% of the rows), rare (touches 1.0% of the rows), rarer (touches 1.0% of the rows)"
    )
    assert missed == f"never found although it has causes: {silent_told}"


def test_where_all_rows_are_drawn_what_is_in_the_pool_is_expected_to_be_found() -> None:
    one = Detection(pool=500, of_fallback=False, mismatches=1 / 500, named={}, sizes=())
    assert (one.theoretical(500), one.theoretical(50)) == (pytest.approx(1.0), pytest.approx(0.1))
    assert replace(one, mismatches=0.0).theoretical(500) == 0.0


def test_a_pair_is_right_only_if_all_samples_together_name_both_halves() -> None:
    pair = Pair.of(KNOWN, replace(NEW, also=frozenset({"late"})))

    def right(*causes: set[str]) -> int:
        return at_size(pair, 50, [Sample(found=True, causes=frozenset(of)) for of in causes]).right

    assert right({"missing"}, {"missing"}) == 0
    assert right({"missing"}, {"type"}, {"late"}, {"missing", "units"}, {"type", "late"}) == 3
    assert at_size(KNOWN, 50, [Sample(found=True, causes=frozenset({"missing"}))]).right == 1


def test_without_any_nothing_is_said_of_them() -> None:
    without = replace(RESULTS, results=RESULTS.results[:2])
    assert "held out" not in page(without, "skew-lab.svg", "lockstep skew all").partition("## All faults")[2]
    assert len(summary(without)) == 3


def test_the_document_says_which_they_are() -> None:
    assert [(f["name"], f["held_out"]) for f in document(RESULTS)["faults"]] == [
        ("clean", False),
        ("known", False),
        ("new", True),
    ]

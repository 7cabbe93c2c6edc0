"""The laboratory's page, table and summary: faults held out are told apart from those that the classifier was written with."""

from dataclasses import replace

from lockstep.clock import parse_time
from lockstep.skew.detection import AtSize, Detection
from lockstep.skew.fault import Fault
from lockstep.skew.harm import Harm
from lockstep.skew.laboratory import CLEAN, Result, Results, Scale
from lockstep.skew.page import page
from lockstep.skew.table import document, summary


def result(fault: Fault, found: int, right: int) -> Result:
    harm = Harm(rows=100, answered=1.0, fell_back=0.0, changed=0.5, moved=0.5, flipped=0.1, clean=None, faulty=None)
    at = AtSize(size=50, seeds=10, found=found, with_strata=found, right=right)
    return Result(fault, harm, {}, Detection(pool=100, of_fallback=False, mismatches=0.5, named={}, sizes=(at,)))


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
    _, known, held_out = summary(RESULTS)
    assert "of faults that make" in known
    assert "90.0% (9 of 10) of all detections" in known
    assert "of faults held out that make" in held_out
    assert "80.0% (8 of 10) were found" in held_out
    assert "25.0% (2 of 8) of all detections" in held_out


def test_without_any_nothing_is_said_of_them() -> None:
    without = replace(RESULTS, results=RESULTS.results[:2])
    assert "held out" not in page(without, "skew-lab.svg", "lockstep skew all").partition("## All faults")[2]
    assert len(summary(without)) == 2


def test_the_document_says_which_they_are() -> None:
    assert [(f["name"], f["held_out"]) for f in document(RESULTS)["faults"]] == [
        ("clean", False),
        ("known", False),
        ("new", True),
    ]

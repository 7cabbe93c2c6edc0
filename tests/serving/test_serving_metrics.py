"""What is counted of the rows that are read, and how old views are said to be."""

from typing import Any

from prometheus_client import REGISTRY

from lockstep.online.reader import Status, ViewRows
from lockstep.serving.metrics import count_rows, tell_ages

Counted = dict[tuple[str, ...], float]


def counted(view: str) -> Counted:
    """All that is counted of a view."""
    return {
        tuple(value for label, value in sample.labels.items() if label != "view"): sample.value
        for metric in REGISTRY.collect()
        if metric.name in {"lockstep_served_view_rows", "lockstep_missing_features"}
        for sample in metric.samples
        if sample.labels.get("view") == view and sample.name.endswith("_total") and sample.value
    }


def rows(status: list[Status], **values: list[Any]) -> ViewRows:
    known: Any = [None if of == "missing" else 1 for of in status]
    return ViewRows(status, known, known, values)


def test_rows_are_counted_by_status_and_values_that_are_not_there_by_reason() -> None:
    read = rows(
        ["present", "missing", "stale", "stale", "present"], spend=[1, None, 3, None, None], visits=[1, None, 2, 2, 0]
    )

    count_rows({"counted": read})

    assert counted("counted") == {
        ("present",): 2.0,
        ("missing",): 1.0,
        ("stale",): 2.0,
        ("spend", "missing"): 1.0,
        ("spend", "stale"): 2.0,
        ("spend", "null"): 1.0,
        ("visits", "missing"): 1.0,
        ("visits", "stale"): 2.0,
    }
    count_rows({"counted": rows(["present"], spend=[5], visits=[None])})
    assert counted("counted")[("present",)] == 3.0
    assert counted("counted")[("visits", "null")] == 1.0
    assert counted("counted")[("spend", "null")] == 1.0


def test_a_view_whose_values_are_all_there_is_missing_nothing() -> None:
    count_rows({"whole": rows(["present", "present"], spend=[0, 0.0], visits=["", False])})

    assert counted("whole") == {("present",): 2.0}


def age(view: str) -> float | None:
    return REGISTRY.get_sample_value("lockstep_feature_age_seconds", {"view": view})


def test_an_age_is_told_in_seconds_and_not_at_all_while_nobody_knows_it() -> None:
    tell_ages({"old": 3_500_000, "new": -1_000_000, "unknown": None})
    assert (age("old"), age("new"), age("unknown")) == (3.5, -1.0, None)

    tell_ages({"old": None, "new": 0})

    assert (age("old"), age("new")) == (None, 0.0)

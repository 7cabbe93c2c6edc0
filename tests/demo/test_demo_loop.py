"""The whole loop, for real: a clean model is promoted, one that is served a misread column is not."""

import json
import re
from pathlib import Path
from typing import Any

from demo_process import OTHERS_WARNINGS, ROOT, start_demo

GOLDEN = ROOT / "tests" / "golden" / "demo_report.json"

pytestmark = OTHERS_WARNINGS


BY_NAME = {"causes", "differing"}
"""What was found, by its name: which names there are is not the format's."""


def shape(value: Any, name: str = "") -> Any:
    """The names in a document, and what kind of value each has."""
    if isinstance(value, dict) and name not in BY_NAME:
        return {k: shape(v, k) for k, v in value.items()}
    return type(value).__name__


def test_the_demo_promotes_the_clean_model_and_refuses_the_skewed_one_whatever_the_machines_zone_and_hash_seed(
    tmp_path: Path,
) -> None:
    demo = start_demo(tmp_path, "--size", "800", "--days", "2", TZ="America/New_York", PYTHONHASHSEED="7")
    said, _ = demo.communicate(timeout=400)
    assert demo.returncode == 0, said
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert shape(report) == json.loads(GOLDEN.read_text()), "scripts read report.json: see docs/design.md, formats"
    views, quality, parity, skew = report["views"], report["quality"], report["parity"], report["skew"]
    assert list(views) == [
        "customer_profile",
        "customer_spend",
        "terminal_static",
        "terminal_activity",
        "terminal_risk",
    ]
    watermarks = {name: view["watermark"] for name, view in views.items()}
    midnight = "2018-07-02T00:00:00+00:00"
    assert watermarks == dict.fromkeys(views, midnight)
    assert {view["freshness"] for view in views.values()} == {"fresh"}
    assert report["online_rows"] == sum(view["online_rows"] for view in views.values()) > 4 * 800

    assert report["promoted"] is True
    assert (parity["verdict"], parity["mismatches"], parity["causes"].get("wrong_row", 0)) == ("pass", 0, 0)
    assert parity["sampled"] >= 320
    assert parity["upper_bound"] < 0.01

    assert skew["promoted"] is False
    assert skew["parity"]["verdict"] == "fail"
    assert skew["parity"]["mismatches"] > 0
    assert skew["parity"]["differing"] == {"risk_7d": "wrong_row"}
    # Offline nothing tells the two apart, and served they are not the same.
    assert skew["model"]["average_precision"] == report["model"]["average_precision"]
    assert skew["model"]["digest"] != report["model"]["digest"]
    assert quality["after"] != quality["skewed"]
    assert quality["after"]["auc"] > quality["before"]["auc"]
    assert quality["after"]["average_precision"] > quality["before"]["average_precision"]
    assert skew["average_precision_drop"] > 0

    page = (tmp_path / "demo" / "parity.html").read_text()
    verdicts = [page.index("Version 2 passes"), page.index("Version 3 is refused")]
    assert verdicts == sorted(verdicts)
    assert "risk_7d" in page
    assert "wrong_row" in page
    assert not re.search(r"\b(live|promote): \d+ of \d+.*\x1b", said), "no bars where nobody looks"
    assert "live: 24 of 48" in said

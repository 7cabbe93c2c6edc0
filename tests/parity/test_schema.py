"""Who reads a report without this library is told by the published schema what is in it."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from kept_reports import a_report
from schemas import problems

from lockstep.parity.schema import schema_text

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas" / "parity_report.schema.json"
SCHEMA: dict[str, Any] = orjson.loads(PUBLISHED.read_bytes())


def test_the_published_schema_is_what_the_model_says() -> None:
    regenerate = "`lockstep parity schema` prints it; a report is a format that outlives code (docs/design.md)"
    assert PUBLISHED.read_text() == schema_text(), regenerate


def test_a_report_is_what_the_schema_says() -> None:
    assert list(problems(orjson.loads(a_report().to_json()), SCHEMA, SCHEMA)) == []
    assert list(problems(orjson.loads(a_report(scores=None, hours=()).to_json()), SCHEMA, SCHEMA)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, "$.version: 2 is not allowed"),
        ({"verdict": "passed"}, "$.verdict: 'passed' is not allowed"),
        ({"mismatches": 1.5}, "$.mismatches: no integer"),
        ({"mismatches": -1}, "$.mismatches: -1 is too small or too great"),
        ({"foreign": 2**63}, "$.foreign: 9223372036854775808 is too small or too great"),
        ({"note": ""}, "$: note is unknown"),
        ({"model": {"name": "m"}}, "$.model: lacks version"),
        ({"present": {"v": "many"}}, "$.present.v: no integer"),
        ({"strata": [{"name": "h", "rows": 1, "mismatches": None}]}, "$.strata[0].mismatches: no integer"),
        ({"scores": {}}, "$.scores: none of anyOf"),
    ],
)
def test_what_is_no_report_is_not_what_the_schema_says(change: dict[str, Any], told: str) -> None:
    assert told in list(problems(orjson.loads(a_report().to_json()) | change, SCHEMA, SCHEMA))

"""Formats that outlive code: a change here needs a migration note in docs/design.md, then a new golden file."""

from pathlib import Path

import orjson
import pytest
from sqlalchemy import create_mock_engine

from feature_repo.definitions import use_case
from lockstep.clock import parse_time
from lockstep.materialize import ledger, receipts  # noqa: F401 - their tables are the ledger's
from lockstep.materialize.database import METADATA
from lockstep.parity.report import (
    REPORTS_SCHEMA,
    DifferenceFound,
    FeatureRate,
    HourCompared,
    ModelNamed,
    ParityReport,
    Sampled,
    ScoreShift,
    Stratum,
)
from lockstep.parity.verdict import Verdict

GOLDEN = Path(__file__).parent / "golden"
MIGRATE = "this format outlives code: write a migration note in docs/design.md before you change the golden file"


def ledger_ddl(dialect: str) -> str:
    statements: list[str] = []
    engine = create_mock_engine(
        f"{dialect}://", lambda sql, *_, **__: statements.append(str(sql.compile(dialect=engine.dialect)))
    )
    METADATA.create_all(engine, checkfirst=False)
    # A table's indexes are a set: theirs is any order.
    statements.sort(key=lambda sql: sql if " INDEX " in sql else "")
    return "\n".join(line.rstrip() for line in "\n".join(statements).splitlines() if line.strip()) + "\n"


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_the_ledgers_tables_are_the_published_ones(dialect: str) -> None:
    assert ledger_ddl(dialect) == (GOLDEN / f"ledger.{dialect}.sql").read_text(), MIGRATE


def test_the_feature_tables_have_the_published_columns() -> None:
    here = {view.name: [[f.name, str(f.type), f.nullable] for f in view.schema] for view in use_case.views}
    assert here == orjson.loads((GOLDEN / "feature_tables.json").read_bytes()), MIGRATE


def a_report() -> ParityReport:
    at = parse_time("2018-06-30T00:00:00Z")
    return ParityReport(
        project="fraud",
        created=at,
        model=ModelNamed(name="fraud", version=3, digest="d" * 64, contract="c" * 64),
        shadow=True,
        since=parse_time("2018-06-29T00:00:00Z"),
        until=at,
        sample=Sampled(served=960, uniform=400, required=299, stratified=130, compared_values=12_000),
        limit=0.01,
        confidence=0.95,
        mismatches=1,
        excused=2,
        stratum_mismatches=0,
        lost=0.0,
        present={"terminal_risk": 399},
        intervals={"terminal_risk": 25},
        upper_bound=0.0118,
        verdict=Verdict.FAIL,
        reasons=("1 of 400 sampled rows are mismatches",),
        features=(
            FeatureRate(name="risk_7d", view="terminal_risk", compared=400, differing=1, causes={"missing": 1}),
        ),
        strata=(Stratum(name="hour 2018-06-29T04Z", rows=5, mismatches=0),),
        causes={"missing": 1},
        differences=(
            DifferenceFound(
                row="r/0",
                kind="training",
                view="terminal_risk",
                feature="risk_7d",
                served=None,
                expected=0.25,
                cause="missing",
                evidence="the logged snapshot has a row of (event, created) = (1, 2)",
            ),
        ),
        hours=(HourCompared(hour=parse_time("2018-06-29T04:00:00Z"), rows=17, mismatches=1, excused=2),),
        scores=ScoreShift.between([0.25, 0.75, 1.0], [0.25, 0.125, 1.0], threshold=0.5),
    )


def test_the_parity_report_is_the_published_one() -> None:
    golden = orjson.loads((GOLDEN / "parity_report.json").read_bytes())
    report = a_report()
    assert {"hash": report.hash, "report": orjson.loads(report.to_json())} == golden, MIGRATE
    assert ParityReport.model_validate(golden["report"]) == report


def test_the_parity_reports_table_has_the_published_columns() -> None:
    here = [[f.name, str(f.type), f.nullable] for f in REPORTS_SCHEMA]
    assert here == orjson.loads((GOLDEN / "parity_reports_table.json").read_bytes()), MIGRATE

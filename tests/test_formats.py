"""Formats that outlive code: a change here needs a migration note in docs/design.md, then a new golden file."""

from pathlib import Path

import orjson
import pytest
from kept_reports import a_report
from sqlalchemy import create_mock_engine

from feature_repo.definitions import use_case
from lockstep.clock import parse_time
from lockstep.materialize import ledger, receipts  # noqa: F401 - their tables are the ledger's
from lockstep.materialize.database import METADATA
from lockstep.parity.kept import REPORTS_SCHEMA
from lockstep.parity.report import ParityReport
from lockstep.training.evaluation import document
from lockstep.training.evaluations import EVALUATIONS_SCHEMA

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


def test_the_parity_report_is_the_published_one() -> None:
    golden = orjson.loads((GOLDEN / "parity_report.json").read_bytes())
    report = a_report()
    assert {"hash": report.hash, "report": orjson.loads(report.to_json())} == golden, MIGRATE
    assert ParityReport.model_validate(golden["report"]) == report


def test_the_parity_reports_table_has_the_published_columns() -> None:
    here = [[f.name, str(f.type), f.nullable] for f in REPORTS_SCHEMA]
    assert here == orjson.loads((GOLDEN / "parity_reports_table.json").read_bytes()), MIGRATE


def an_evaluation() -> document.Evaluation:
    """One that uses every field, of values that no computation changes."""
    at = parse_time("2018-06-30T00:00:00Z")
    metrics = document.Metrics(average_precision=0.625, auc=0.875, entity_precision=0.25)
    sure = document.Estimate(value=0.625, interval=document.Interval(low=0.5, high=0.75, replicates=200))
    unsure = document.Estimate(value=0.25, interval=None)
    stretch = document.Stretch(start=at, end=at, rows=64, positives=8)
    model = document.ModelNamed(name="fraud", digest="d" * 64, contract="c" * 64)
    day = document.DayPrecision(day=at.date(), entities=9, positives=2, found=1, precision=0.25)
    filled = document.CalibrationBin(low=0.0, high=1.0, rows=64, mean_score=0.125, positives=8)
    return document.Evaluation(
        created_at=at,
        model=model,
        rules=document.Rules(
            label=("tx_fraud", "labelled_at"),
            train_s=86_400.0,
            gap_s=3_600.0,
            test_s=43_200.0,
            protocol={"entity": "customer_id", "top": 4, "leave_known_out": True, "group": ""},
            ceilings={"auc": 0.99},
            decision=0.5,
        ),
        training_set=document.TrainingSetUsed(
            table="training_0", known_at=at, train=stretch, test=stretch, left_out={"gap": 3}, snapshots={"labels": 7}
        ),
        performance=document.Performance(
            rows=64,
            positives=8,
            entities=9,
            no_skill=0.125,
            average_precision=sure,
            auc=sure,
            entity_precision=unsure,
            daily=document.EntityPrecision(top=4, precision=0.25, ceiling=0.5, no_skill=0.125, days=(day,)),
            calibration=document.Calibration(
                brier=0.125, brier_no_skill=0.25, expected_error=0.0, mean_score=0.125, share=0.125, bins=(filled,)
            ),
            decision=document.Decision(threshold=0.5, flagged=4, found=2, positives=8),
            groups=(document.GroupRecall(group=1, positives=8, above_threshold=2, in_top=1),),
            roc=((0.0, 0.0), (1.0, 1.0)),
            precision_recall=((0.0, 1.0), (1.0, 0.125)),
            seed=0,
        ),
        comparison=document.Comparison(
            champion=model.model_copy(update={"version": 2}),
            metrics=metrics,
            average_precision=sure,
            auc=sure,
            entity_precision=unsure,
            incomparable="because",
        ),
        importance=document.Importance(
            rows=64,
            repeats=3,
            seed=0,
            features=(document.FeatureImportance(view="v", feature="f", loss=0.5, deviation=0.25),),
        ),
        clocks=document.Clocks(
            metrics={"served": metrics}, prices=(document.ViewPrice(view="v", late_s=2400.0, average_precision=0.5),)
        ),
        fallback=document.Fallback(model=model, service="s", features=("f",), metrics=metrics),
        alarms=(document.Alarm(name="current_row", subject="v:f", evidence="5 of 5"),),
        audit=document.Audit(rows={"v": 400}, unexplained={"v:f": 1}, not_judged=("few",)),
    )


def test_the_evaluation_is_the_published_one() -> None:
    golden = orjson.loads((GOLDEN / "evaluation.json").read_bytes())
    made = an_evaluation()
    assert {"hash": made.hash, "evaluation": orjson.loads(made.to_json())} == golden, MIGRATE
    assert document.Evaluation.model_validate(golden["evaluation"]) == made


def test_the_evaluations_table_has_the_published_columns() -> None:
    here = [[f.name, str(f.type), f.nullable] for f in EVALUATIONS_SCHEMA]
    assert here == orjson.loads((GOLDEN / "evaluations_table.json").read_bytes()), MIGRATE

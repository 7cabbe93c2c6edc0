"""Verify as the pipeline's step does, but for keeping the report."""

from pathlib import Path
from typing import Any

import click

from benchmarks._parity.case import START, Case, model_folder, settings_of
from benchmarks._parity.definitions import use_case
from benchmarks._process import timed
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.parity.cause import EXCUSED, Cause
from lockstep.parity.report import ParityReport
from lockstep.parity.verdict import Verdict
from lockstep.parity.verify import Question, measure
from lockstep.serving.artifact import load_contract, model_digest
from lockstep.training.registry import Registered


def run(case: Case, home: Path) -> dict[str, Any]:
    """Verify the rows, require that what is wrong is found and named, and say what it took."""
    settings, folder = settings_of(home), model_folder(home)
    lake, ledger = Lake.open(settings, use_case.project), Ledger.open(settings, use_case.project)
    model = Registered(1, folder, model_digest(folder), load_contract(folder), {}, {})
    question = Question(shadow=False, since=START, until=case.until, rows=case.rows)
    report, took = timed(lambda: measure(settings, use_case, lake, ledger, model, question))
    _require_found(case, report)
    found = {"mismatches": report.mismatches, "excused": report.excused, "causes": dict(report.causes)}
    return {**took, **found, "compared_values": report.sample.compared_values}


def _require_found(case: Case, report: ParityReport) -> None:
    """Refuse the figures of a verification that did not find what is there, or found what is not."""
    named = set(report.causes) - {cause.value for cause in EXCUSED}
    share = report.mismatches / report.sample.uniform
    right = report.verdict is Verdict.PASS and report.mismatches == 0 and not named
    if case.wrong:
        wrong_row = named == {Cause.WRONG_ROW.value}
        right = report.verdict is Verdict.FAIL and wrong_row and abs(share / case.wrong - 1) < 0.2
    if not right or report.sample.uniform != case.rows:
        told = f"{report.verdict}, {report.mismatches} of {report.sample.uniform} mismatches"
        raise click.ClickException(f"{told}, {dict(report.causes)}; {', '.join(report.reasons)}")

"""Verify parity from the console, and tell what a report says: the verdict first, what differs, and what to do about it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import click

from lockstep.clock import parse_time
from lockstep.errors import LockstepError
from lockstep.parity.kept import load, name_of, peek
from lockstep.parity.page import CAUSE_WORDS, Finding, findings, headline, other_reasons, render
from lockstep.parity.publish import FOLDER, publish
from lockstep.parity.remedies import remedies
from lockstep.parity.report import ParityReport
from lockstep.parity.verdict import Verdict
from lockstep.parity.verify import Question, verify
from lockstep.report.numbers import SPACE, moment, percent, whole
from lockstep.training.registry import require_model
from steps._wiring import Wiring

FINDINGS_TOLD = 10


def verify_now(
    which: str,
    *,
    shadow: bool,
    fallback: bool,
    since: str | None,
    until: str | None,
    hours: int,
    rows: int,
    as_json: bool,
) -> int:
    """Verify a model's parity, keep the report with its page, and tell it; return the exit code of the verdict.

    Raises:
        BadInput: there is no such model, a time is none, the window is empty, or there is no key to sign with.
    """
    wiring = Wiring()
    end = parse_time(until, "--until") if until else wiring.settings.clock.now()
    start = parse_time(since, "--since") if since else end - timedelta(hours=hours)
    model = require_model(wiring.settings, wiring.use_case.model.name, which)
    question = Question(shadow=shadow, since=start, until=end, rows=rows, fallback=fallback)
    report = verify(wiring.settings, wiring.use_case, wiring.lake, wiring.ledger, model, question)
    page = write_page(report, wiring.settings.home / FOLDER / f"{report.hash}.html")
    address = publish(wiring.settings, report)
    if as_json:
        click.echo(report.to_json())
    else:
        places = {"page": str(page), "in MLflow": address, "report": f"{report.hash}, signed"}
        click.echo("\n".join(told(report, places)))
    return 0 if report.verdict is Verdict.PASS else 3


def show_report(said: str, *, page: Path | None, as_json: bool) -> None:
    """Tell what a report says that is kept.

    Raises:
        BadInput: there is none of that name, or it was changed.
    """
    wiring = Wiring()
    name = name_of(wiring.settings, wiring.lake, said)
    report = peek(wiring.settings, wiring.lake, name)
    written = {"page": str(write_page(report, page))} if page else {}
    if as_json:
        click.echo(report.to_json())
        return
    places = {"made": moment(report.created), **written, "report": f"{name}, {_signed(wiring, name)}"}
    click.echo("\n".join(told(report, places)))


def write_page(report: ParityReport, file: Path) -> Path:
    """Write a report's page; return where it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(render([report]), encoding="utf-8")
    return file


def told(report: ParityReport, places: dict[str, str]) -> Iterator[str]:
    """Yield the lines that tell a report.

    Args:
        report: what is told.
        places: what else is known of it, by what to call it.
    """
    happens, why = headline(report)
    yield _plain(f"{happens}: {why}")
    yield from (_plain(f"  also: {reason}") for reason in other_reasons(report))
    found = findings(report)
    if found:
        yield "\nwhat differs"
    for finding in found[:FINDINGS_TOLD]:
        yield from (_plain(line) for line in _finding(report, finding))
    if len(found) > FINDINGS_TOLD:
        yield f"  and {len(found) - FINDINGS_TOLD} more, in fewer rows"
    to_do = list(_to_do(report))
    if to_do:
        yield from ("\nwhat to do", *to_do)
    yield ""
    facts = {"served": _served(report), "compared": _compared(report), "scores": _scores(report), **places}
    yield from (_plain(f"{name:<10} {fact}") for name, fact in facts.items() if fact)


def _finding(report: ParityReport, finding: Finding) -> Iterator[str]:
    what = f"{finding.feature} of {finding.view}" if finding.feature else f"a stored row of {finding.view}"
    rows = finding.rows
    share = (
        f"{whole(rows)} row{'s' * (rows > 1)} ({percent(rows / report.sample.uniform)})"
        if rows
        else f"{finding.kept} told"
    )
    excused = ", excused" if finding.excused else ""
    yield f"  {what}: {finding.cause}, {share}{excused}"
    yield f"      {CAUSE_WORDS.get(finding.cause, finding.cause)}"
    if finding.evidence:
        yield f"      {finding.evidence}"
    for row, served, expected in finding.examples[:1]:
        yield f"      served {served}, expected {expected} (row {row})"


def _to_do(report: ParityReport) -> Iterator[str]:
    for remedy in remedies(report):
        yield f"  {remedy.cause}: {remedy.says}"
        if remedy.command:
            yield f"      {remedy.command}"
    if report.verdict is Verdict.NOT_ENOUGH_EVIDENCE:
        yield "  Take a longer window, and bring the rows into the lake that still wait in the stream."
        yield "      lockstep run drain-served-log"


def _served(report: ParityReport) -> str:
    to = "a shadow replay" if report.shadow else "live requests"
    window = f"{moment(report.since)} to {moment(report.until)}"
    return f"{report.model.name} {report.model.version} to {to}, {window}: {whole(report.sample.served)} rows"


def _compared(report: ParityReport) -> str:
    return f"{whole(report.sample.uniform)} rows at random, {whole(report.sample.stratified)} of every hour and kind"


def _scores(report: ParityReport) -> str:
    scores = report.scores
    if scores is None:
        return ""
    if not scores.changed:
        return f"none of {whole(scores.rows)} differs"
    return (
        f"{whole(scores.changed)} of {whole(scores.rows)} differ, by {scores.largest_shift:.3g} at most; "
        f"{whole(scores.flipped)} would have been decided otherwise at {scores.threshold:g}"
    )


def _signed(wiring: Wiring, name: str) -> str:
    """Return whether a report would be believed here, and why not."""
    try:
        load(wiring.settings, wiring.lake, name)
    except LockstepError as doubt:
        return f"NOT BELIEVED: {doubt.args[0]}"
    return "signed"


def _plain(text: str) -> str:
    """Return a line as any terminal shows it."""
    return text.replace(SPACE, " ")

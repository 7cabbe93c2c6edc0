"""`lockstep materialize`, `repair` and `doctor`: bring views online by hand, and look whether they are."""

import json
from collections.abc import Sequence
from dataclasses import asdict

import click

from lockstep.errors import Refused
from lockstep.materialize.doctor import Diagnosis
from lockstep.materialize.ledger_rows import MaterializeRow
from steps._wiring import Wiring


def bring_online(names: Sequence[str], *, as_json: bool, everything: bool) -> None:
    """Materialize views, one after another, and print a line each.

    Raises:
        BadInput: there is no such view, or it was never computed.
        LockstepError: a view could not be brought online; those before it are.
    """
    wiring = Wiring()
    documents: list[dict[str, object]] = []
    for name in _views(wiring, names):
        done = wiring.materializer(name).run(everything=everything)
        documents.append(_document(name, done))
        if not as_json:
            click.echo(_line(name, done))
    if as_json:
        click.echo(json.dumps(documents, indent=2))


def diagnose(names: Sequence[str], one_of: int, *, as_json: bool) -> None:
    """Print how the online store stands to the lake.

    Raises:
        BadInput: there is no such view.
        Refused: something is wrong.
    """
    wiring = Wiring()
    found: list[Diagnosis] = []
    for name in _views(wiring, names):
        found.append(wiring.materializer(name).diagnose(one_of))
        if not as_json:
            _say(found[-1])
    if as_json:
        click.echo(json.dumps([asdict(diagnosis) for diagnosis in found], indent=2))
    if wrong := [diagnosis.view for diagnosis in found if diagnosis.problems]:
        raise Refused(f"the online store is not as it should be: {', '.join(wrong)}")


def _views(wiring: Wiring, names: Sequence[str]) -> list[str]:
    """Return the views' names, checked before anything is done."""
    return [wiring.use_case.view(name).name for name in names] or [view.name for view in wiring.use_case.views]


def _line(name: str, done: MaterializeRow | None) -> str:
    if done is None:
        return f"{name}: nothing new"
    return (
        f"{name}: interval {done.id} ({done.mode.value}) is online, {done.rows_accepted:,} keys written, "
        f"{done.rows_rejected:,} were newer; watermark {done.watermark.isoformat()}"
    )


def _document(name: str, done: MaterializeRow | None) -> dict[str, object]:
    if done is None:
        return {"view": name, "interval": None}
    return {
        "view": name,
        "interval": done.id,
        "mode": done.mode.value,
        "accepted": done.rows_accepted,
        "rejected": done.rows_rejected,
        "watermark": done.watermark.isoformat(),
    }


def _say(diagnosis: Diagnosis) -> None:
    if not diagnosis.problems:
        click.echo(f"{diagnosis.view}: {diagnosis.keys:,} keys are as in the lake")
    for problem in diagnosis.problems:
        click.echo(f"{diagnosis.view}: {problem}")

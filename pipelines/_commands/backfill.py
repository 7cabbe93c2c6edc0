"""`lockstep backfill`: compute a range of a view's ticks, each in the way that is right for it, and bring the view online."""

import json

import click

from lockstep.clock import parse_time
from lockstep.views.compute import Part, backfill, plan_backfill
from pipelines._commands.online_store import bring_online
from steps._wiring import Wiring


def compute_and_bring_online(name: str, start: str, end: str, *, dry_run: bool, as_json: bool) -> None:
    """Compute the ticks `start < T <= end` of a view, print what was done, and materialize it.

    Args:
        name: of the view.
        start: RFC 3339 with a zone.
        end: the same.
        dry_run: only print which ticks would be computed how.
        as_json: print a JSON document, when the whole is done.

    Raises:
        BadInput: there is no such view, a time has no zone, or the range cannot be computed.
        LockstepError: it was not computed, or was and is not online yet.
    """
    wiring = Wiring()
    view = wiring.use_case.view(name)
    after, last = parse_time(start, "--from"), parse_time(end, "--to")
    parts = plan_backfill(wiring.settings, wiring.ledger, view, after, last)
    if dry_run:
        if as_json:
            click.echo(json.dumps([_document(part) for part in parts], indent=2))
        for part in () if as_json else parts:
            click.echo(f"{name}: {_line(part)}")
        return
    done = backfill(wiring.settings, wiring.lake, wiring.ledger, view, after, last)
    if as_json:
        wiring.materializer(name).run()
        document = {
            "view": name,
            "parts": [_document(part) for part in parts],
            "tick": done.tick.isoformat(),
            "rows": done.rows,
            "quarantined": done.quarantined,
        }
        click.echo(json.dumps(document, indent=2))
        return
    for part in parts:
        click.echo(f"{name}: {_line(part)}")
    left_out = f", {done.quarantined:,} source rows quarantined" if done.quarantined else ""
    click.echo(f"{name}: {done.rows:,} rows written{left_out}; computed up to {done.tick.isoformat()}")
    bring_online([name], as_json=False, everything=False)


def _line(part: Part) -> str:
    return f"{part.mode.value} the ticks after {part.after.isoformat()} up to {part.last.isoformat()}"


def _document(part: Part) -> dict[str, str]:
    return {"mode": part.mode.value, "after": part.after.isoformat(), "last": part.last.isoformat()}

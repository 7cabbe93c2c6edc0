"""`lockstep sweep`: what deleted views left in the online store."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import click

from lockstep.contract import stored_view
from lockstep.lake import Lake
from lockstep.online.sweep import Swept, sweep
from lockstep.training.registry import models_in_use
from steps._wiring import Wiring

_SECONDS = 5.0


def sweep_views(names: Sequence[str], *, dry_run: bool, per_second: int, as_json: bool) -> None:
    """Remove the rows of views that are not declared any more, and print how many.

    Raises:
        BadInput: a view is declared, a model in use reads it, or nobody can tell what one reads.
        Transient: the store does not answer; running it again goes on.
    """
    wiring = Wiring()
    going = [(name, _features(wiring.lake, name)) for name in dict.fromkeys(names)]
    models = models_in_use(wiring.settings, wiring.use_case.model.name, every=True).values()
    stay = [stored_view(view) for view in wiring.use_case.views] + [view for of in models for view in of.views]
    done = sweep(
        wiring.store,
        wiring.use_case.project,
        stay,
        going,
        dry_run=dry_run,
        per_second=per_second,
        progress=_now_and_then(),
    )
    if as_json:
        click.echo(json.dumps(asdict(done), indent=2))
        return
    would = "would go" if dry_run else "went"
    click.echo(f"{done.keys:,} keys looked at; from {done.hashes:,} hashes {done.fields:,} fields {would}")
    if done.left:
        click.echo(f"{done.left:,} fields stay that may be another undeclared view's: name it too, if it is to go")


def _features(lake: Lake, view: str) -> list[str]:
    """Return the columns of the view's table, which outlives its declaration."""
    return lake.schema(view).names if lake.exists(view) else []


def _now_and_then() -> Callable[[Swept], None]:
    last = time.monotonic()

    def say(done: Swept) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS:
            last = time.monotonic()
            click.echo(f"{done.keys:,} keys looked at, {done.hashes:,} hashes held a row", err=True)

    return say

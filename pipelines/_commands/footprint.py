"""`lockstep doctor --bytes`: what the online store's memory goes to."""

import json
from dataclasses import asdict

import click

from lockstep.online.footprint import Estimate, footprints
from steps._wiring import Wiring


def show_bytes(*, sample: int, as_json: bool) -> None:
    """Print what each entity's hashes take, and each view's part of them.

    Raises:
        Transient: the store does not answer.
        Terminal: it does not tell its memory.
    """
    wiring = Wiring()
    found = footprints(wiring.settings, wiring.use_case, wiring.lake, wiring.store, sample)
    if as_json:
        click.echo(json.dumps([asdict(entity) for entity in found], indent=2))
        return
    for entity in found:
        click.echo(f"{entity.entity}: {entity.sampled:,} of {entity.keys:,} keys measured")
        parts = {"whole hash": entity.whole, **entity.views, "others": entity.others}
        width = max(map(len, parts))
        for name, part in parts.items():
            if part.found:
                click.echo(f"  {name.ljust(width)}  {_line(part)}")


def _line(part: Estimate) -> str:
    off = f", ± {part.error:,}" if part.error else ""
    return f"{part.per_key:7,.0f} bytes a key in {part.found:,} keys; about {part.total:,} bytes in all{off}"

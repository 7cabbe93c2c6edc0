"""`lockstep erase`: one entity, everywhere, with a receipt."""

import json
from dataclasses import asdict

import click

from lockstep.erasure import Erasure, read_key
from lockstep.materialize.receipts import Outcome
from steps._wiring import Wiring


def erase_entity(entity: str, text: str, *, dry_run: bool, as_json: bool) -> None:
    """Erase an entity, or say what would go, and print the receipt.

    Raises:
        BadInput: there is no such entity, or the text is no key of it.
        LockstepError: it was interrupted; the next run goes on from there.
    """
    wiring = Wiring()
    key = read_key(wiring.use_case, entity, text)
    progress = (lambda _: None) if as_json else click.echo
    erasure = Erasure(wiring.settings, wiring.use_case, wiring.lake, wiring.ledger, wiring.store, progress)
    if dry_run:
        outcome = erasure.preview(key)
        click.echo(json.dumps(asdict(outcome), indent=2) if as_json else "\n".join(_lines(outcome, "would go")))
        return
    receipt = erasure.erase(key)
    if as_json:
        click.echo(json.dumps(asdict(receipt), indent=2, default=str))
        return
    click.echo("\n".join(_lines(receipt.outcome, "went")))
    click.echo("`lockstep materialize` tells the online store which snapshots there are now")
    click.echo(f"receipt {receipt.id}: the {entity} of SHA-256 {receipt.key_sha256}, {receipt.state.value}")


def _lines(outcome: Outcome, what: str) -> list[str]:
    lines: list[str] = []
    for table, gone in outcome.tables.items():
        lines.append(f"{table}: {gone.rows:,} rows, {gone.snapshots:,} snapshots, {gone.files:,} files {what}")
        lines += [f"  with {name} ({purpose})" for name, purpose in gone.refs.items()]
    if not lines:
        lines.append("no table holds it")
    return [
        *lines,
        f"online: {outcome.online_keys:,} hashes, {outcome.stream_entries:,} waiting rows of the served log {what}",
    ]

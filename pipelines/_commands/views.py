"""`lockstep views`: who owns which feature view, what it promises, who uses it, and how far it has come."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.monitoring.inventory import ViewState, inventory, one_view
from lockstep.settings import Settings
from lockstep.training.registry import models_in_use
from lockstep.views import load_use_case

_COLUMNS = ("view", "kind", "owner", "objective", "ttl", "rows", "watermark", "freshness", "services")


def show_views(settings: Settings, name: str | None, *, as_json: bool) -> None:
    """Print all views as a table, or one of them whole.

    Raises:
        BadInput: there is no such view.
    """
    use_case = load_use_case(settings.use_case)
    with _looked_at(settings) as seen:
        lake, ledger = Lake.open(seen, use_case.project), Ledger.open(seen, use_case.project)
        views = inventory(seen, use_case, lake, ledger, models_in_use(seen, use_case.model.name))
    wanted = [one_view(views, name)] if name else views
    if as_json:
        documents = [_document(view) for view in wanted]
        click.echo(json.dumps(documents[0] if name else documents, indent=2))
    elif name:
        click.echo("\n".join(_whole(wanted[0])))
    else:
        click.echo("\n".join(_table(views)))


@contextmanager
def _looked_at(settings: Settings) -> Generator[Settings]:
    """Give the settings; where their home is not there yet, with an empty one in its place: opening a lake makes it."""
    if settings.home.exists():
        yield settings
        return
    click.echo(
        f"nothing has run in {settings.home} yet: the folder is not there, and looking does not make it", err=True
    )
    with TemporaryDirectory(prefix="lockstep-views-") as empty:
        texts = {name: value for name, value in settings.model_dump().items() if isinstance(value, str)}
        moved = {name: text.replace(f"{settings.home}/", f"{empty}/") for name, text in texts.items()}
        yield settings.model_copy(update={**moved, "home": Path(empty)})


def _table(views: list[ViewState]) -> list[str]:
    rows = [_COLUMNS, *(_row(view) for view in views)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, "", "`lockstep views NAME` shows one of them whole"]


def _row(view: ViewState) -> tuple[str, ...]:
    return (
        view.name,
        view.kind,
        view.owner,
        _objective(view),
        _ttl(view),
        "" if view.rows is None else f"{view.rows:,}",
        view.watermark.strftime("%Y-%m-%dT%H:%MZ") if view.watermark else "",
        view.freshness,
        ", ".join(view.services) or "none",
    )


def _whole(view: ViewState) -> list[str]:
    facts = {
        "kind": f"{view.kind}{f', every {duration(view.every)}' if view.every else ''}",
        "owner": view.owner,
        "about": view.entity,
        "source": view.source,
        "reads": ", ".join(view.reads),
        "objective": _objective(view),
        "ttl": _ttl(view),
        "services": ", ".join(view.services) or "none",
        "consumers": ", ".join(view.consumers) or "none",
        "rows": "" if view.rows is None else f"{view.rows:,} in the lake",
        "watermark": f"{view.watermark.isoformat()}, {duration(view.age)} ago: {view.freshness}"
        if view.watermark and view.age is not None
        else view.freshness,
        "tags": ", ".join(f"{key}={value}" for key, value in view.tags.items()),
    }
    names = [f"  {name}" for name in view.features]
    width = max(map(len, (*facts, *names)))
    lines = [f"{view.name}: {view.description}", ""]
    lines += [f"{fact.ljust(width)}  {text}" for fact, text in facts.items() if text]
    features = (f"{name.ljust(width)}  {dtype}" for name, dtype in zip(names, view.features.values(), strict=True))
    return [*lines, "", "features", *features]


def _objective(view: ViewState) -> str:
    if view.objective is None:
        return ""
    return f"{duration(view.objective)} {'hard' if view.hard else 'soft'}"


def _ttl(view: ViewState) -> str:
    if view.ttl is None:
        return ""
    return duration(view.ttl) if view.ttl else "for ever"


def duration(length: timedelta) -> str:
    """Return a duration as whole days, hours or minutes, rounded down: what a person would say."""
    minutes = int(length.total_seconds()) // 60
    if minutes >= 2 * 24 * 60:
        return f"{minutes // (24 * 60)} d"
    return f"{minutes // 60} h" if minutes >= 60 else f"{minutes} min"


def _document(view: ViewState) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, timedelta):
            return value.total_seconds()
        return value.isoformat() if hasattr(value, "isoformat") else value

    return {key: plain(value) for key, value in asdict(view).items()} | {"freshness": view.freshness}

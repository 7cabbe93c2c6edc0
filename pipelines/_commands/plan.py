"""`lockstep plan`: what a change of the definitions touches, and what it takes before and after it is merged."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockstep.changes import Consequence, Definitions, Plan, Subject, compare
from lockstep.changes.revisions import (
    Repository,
    Revision,
    find_repository,
    find_revision,
    package_folder,
    read_definitions,
    work_tree,
)
from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, Refused, UseCaseError
from lockstep.settings import Settings

if TYPE_CHECKING:
    from lockstep.materialize.ledger_rows import ComputeRow

NEEDS_WORK = 4
_APPLIED = {"entity", "stored view", "on-demand view", "service"}
_WIDTH = 118
_INDENT = 12


@dataclass(frozen=True)
class Planned:
    """A plan, and what it was made of.

    Attributes:
        plan: what changes.
        since: the revision that is live.
        until: the one that is to be.
        models: how the models in use were found, in a sentence.
        commands: what is to be run once it is merged, in this order.
    """

    plan: Plan
    since: Revision
    until: Revision
    models: str
    commands: tuple[str, ...]


def show_plan(
    settings: Settings, since: str | None, until: str | None, *, as_json: bool, detailed_exitcode: bool
) -> int:
    """Print the plan and return what the command exits with.

    Raises:
        BadInput: a revision is not there.
        UseCaseError: a revision's definitions do not import.
        Refused: something may not be merged as it is.
    """
    planned = make_plan(settings, since, until)
    if as_json:
        click.echo(json.dumps(document(planned), indent=2))
    else:
        click.echo("\n".join(lines(planned)))
    if planned.plan.refused:
        names = ", ".join(subject.name for subject in planned.plan.refused)
        raise Refused(f"not as it is: {names}", hint="what to do is said at each of them")
    return NEEDS_WORK if detailed_exitcode and planned.plan.needs_work else 0


def make_plan(settings: Settings, since: str | None, until: str | None) -> Planned:
    """Compare two revisions of the configured use case.

    Args:
        settings: which use case, and where models in use and computed ticks are looked up.
        since: a git revision or a folder; None is where `until` left the main branch.
        until: the same; None is the work tree.

    Raises:
        BadInput: a revision is not there, or there is no git to ask for one.
        UseCaseError: a revision's definitions do not import.
    """
    package = settings.use_case
    repository = find_repository(package)
    target = work_tree(package) if until is None else find_revision(until, package, repository)
    base = find_revision(since, package, repository) if since is not None else _base(repository, package, target)
    old = read_definitions(base, repository, package)
    models, told = _models(settings, old, base)
    asked = {view.function for contract in models.values() for view in contract.on_demand}
    asked |= {view.function for view in old.on_demand} if old else set()
    new = read_definitions(target, repository, package, asked)
    if new is None:
        raise UseCaseError(
            f"{target.name} has no package {package!r}", hint="a use case is removed by removing its home"
        )
    plan = compare(old, new, models)
    return Planned(plan, base, target, told, tuple(_commands(settings, plan, new)))


def _base(repository: Repository | None, package: str, target: Revision) -> Revision:
    if repository is None:
        raise BadInput(
            f"{package_folder(package)} is in no git repository",
            hint="name two folders that hold the package: --from FOLDER --to FOLDER",
        )
    return repository.base(target.commit or "HEAD")


def _models(settings: Settings, old: Definitions | None, base: Revision) -> tuple[Mapping[str, FeatureContract], str]:
    """Return the contracts of the models in use, and how they were found."""
    if old is None or old.model is None or old.contract is None:
        return {}, f"none: {base.short} has no definitions yet"
    path = _missing_file(settings.tracking_url)
    if path is not None:
        # As in CI. What the live revision trains on is the nearest to what is live: better than to let all pass.
        contract = {f"{old.model.name} (as {base.short} declares it)": old.contract}
        return contract, f"no registry at {path}: {old.model.name} is taken to be in use as {base.short} declares it"
    from lockstep.training.registry import models_in_use  # noqa: PLC0415 - imports MLflow, 2 s

    models = models_in_use(settings, old.model.name)
    return models, ", ".join(models) or f"none in use: no version of {old.model.name} that can be read has an alias"


def _missing_file(url: str) -> Path | None:
    """Return the file of an embedded database that is not there: asking it would make it."""
    path, here = Path(url.removeprefix("sqlite:///")), Path.cwd()
    if not url.startswith("sqlite:///") or path.exists():
        return None
    return path.relative_to(here) if path.is_relative_to(here) else path


def _commands(settings: Settings, plan: Plan, new: Definitions) -> Iterator[str]:
    """Yield what is to be run after the merge; what is refused has to become something else first."""
    accepted = [subject for subject in plan.subjects if not subject.consequence.refused]
    if any(s.kind in _APPLIED and s.consequence is not Consequence.NONE for s in accepted):
        yield "lockstep run apply-definitions"
    for subject in accepted:
        if subject.takes(Consequence.BACKFILL):
            yield from _backfills(settings, new, subject)
    if any(subject.takes(Consequence.RETRAIN) for subject in accepted):
        yield "lockstep run train -p known_at=…"
    for subject in accepted:
        if subject.takes(Consequence.SWEEP):
            yield f"lockstep sweep {subject.name}"


def _backfills(settings: Settings, new: Definitions, subject: Subject) -> Iterator[str]:
    """Yield what computes a view's ticks: a new one's where the others have theirs, else its own, as far as they can be again."""
    name, ranges, kept = subject.name, _new_ticks(settings, new), list[str]()
    if not subject.is_new:
        ranges, kept = _ticks_again(settings, new, name)
    for start, end in ranges or ([] if kept else [("…", "…")]):
        yield f"lockstep backfill {name} --from {start} --to {end}"
    yield from (f"# {name}: {told}" for told in kept)


def _new_ticks(settings: Settings, new: Definitions) -> list[tuple[str, str]]:
    if _missing_file(settings.ledger_url) is not None:
        return []
    tiles = [tile for view in new.views for tile in _tiles(settings, new.project, view.name)]
    if not tiles:
        return []
    return [(_time(min(tile.tick_from for tile in tiles)), _time(max(tile.tick_to for tile in tiles)))]


def _ticks_again(settings: Settings, new: Definitions, name: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the ranges that a changed view is computed again for, and which of its ticks stay as they are, in words."""
    if _missing_file(settings.ledger_url) is not None or _missing_file(settings.catalog_uri) is not None:
        return [], []
    from lockstep.lake import Lake  # noqa: PLC0415 - as all of these, it takes its time to import
    from lockstep.materialize.ledger_rows import correctable  # noqa: PLC0415

    tiles, lake = _tiles(settings, new.project, name), Lake.open(settings, new.project)
    source = next(view.source for view in new.views if view.name == name)
    if not tiles or not lake.exists(source):
        return [], []
    ranges = correctable(tiles, {snapshot.id for snapshot in lake.snapshots(source)})
    edges = [tiles[0].tick_from, *(edge for found in ranges for edge in found), tiles[-1].tick_to]
    kept = [
        f"the ticks after {_time(start)} up to {_time(end)} keep the old definition: what they were computed from has expired"
        for start, end in zip(edges[::2], edges[1::2], strict=True)
        if start < end
    ]
    if edges[-2] < edges[-1]:
        kept.append("so live ticks stay refused: declare what is new under another name")
    return [(_time(start), _time(end)) for start, end in ranges], kept


def _tiles(settings: Settings, project: str, name: str) -> "list[ComputeRow]":
    from lockstep.materialize.ledger import Ledger  # noqa: PLC0415 - SQLAlchemy takes its time to import
    from lockstep.materialize.ledger_rows import Mode  # noqa: PLC0415

    return [row for row in Ledger.open(settings, project).computes(name) if row.mode is not Mode.CORRECT]


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def lines(planned: Planned) -> list[str]:
    """Return the plan as a person reads it: the verdict first."""
    plan = planned.plan
    told = [_verdict(plan)]
    for label, text in (("from", planned.since.name), ("to", planned.until.name), ("models", planned.models)):
        told += _wrapped(label, text)
    for subject in plan.subjects:
        told += ["", *subject_lines(subject)]
    if planned.commands:
        told += ["", "after the merge:" if not plan.refused else "after the merge of what is not refused:"]
        told += [f"  {command}" for command in planned.commands]
    return told


def _verdict(plan: Plan) -> str:
    if not plan.subjects:
        return "no definition changed"
    number = len(plan.subjects)
    changed = f"{number} definition{'s' * (number != 1)} changed"
    if plan.refused:
        return f"REFUSED: {', '.join(s.name for s in plan.refused)} cannot be merged as it is ({changed})"
    worst = {change.consequence for s in plan.subjects for change in s.changes} - {Consequence.NONE}
    return (
        f"{changed}: {', '.join(c.value for c in Consequence if c in worst)}" if worst else f"{changed}: nothing to do"
    )


def subject_lines(subject: Subject) -> list[str]:
    """Return what changed of one thing, whom it touches, and what to do."""
    by = f", {subject.owner}" if subject.owner else ""
    told = [f"{subject.name}  ({subject.kind}{by}): {subject.consequence.value}"]
    for change in subject.changes:
        if change.what.startswith("model "):
            told += _wrapped("model", f"{change.what.removeprefix('model ')}: {change.why}")
            continue
        told += _wrapped(change.what, f"{change.old or 'none'} → {change.new or 'none'}")
        if change.why:
            told += _wrapped("", f"{change.consequence.value}: {change.why}")
    if reached := _touched(subject):
        told += _wrapped("touches", reached)
    if todo := _todo(subject):
        told += _wrapped("do", todo)
    return told


def _touched(subject: Subject) -> str:
    touched = subject.touched
    kinds = {
        "table": touched.tables,
        "view": touched.views,
        "on-demand view": touched.on_demand,
        "service": touched.services,
        "model": touched.models,
    }
    return "; ".join(f"{kind}{'s' * (len(names) > 1)} {', '.join(names)}" for kind, names in kinds.items() if names)


def _todo(subject: Subject) -> str:
    if subject.takes(Consequence.VERSION):
        return f"leave {subject.name} as it is, and declare what is new under another name, such as {subject.name}_v2"
    if subject.takes(Consequence.BREAKS):
        return f"keep {subject.name} until no model in use reads it: train and promote one that does not"
    return ""


def _wrapped(label: str, text: str) -> list[str]:
    """Return a labelled text, wrapped under itself; a long label stands on a line of its own."""
    head = f"  {label}".ljust(_INDENT)
    body = textwrap.wrap(text, _WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False)
    if not body:
        return [head.rstrip()]
    above = [head] if len(head) > _INDENT else []
    first = " " * _INDENT if above else head
    return [*above, f"{first}{body[0]}", *(f"{' ' * _INDENT}{line}" for line in body[1:])]


def document(planned: Planned) -> dict[str, Any]:
    """Return the plan for machines."""
    plan = planned.plan
    return {
        "project": plan.project,
        "from": {"name": planned.since.name, "commit": planned.since.commit},
        "to": {"name": planned.until.name, "commit": planned.until.commit},
        "models": planned.models,
        "refused": [subject.name for subject in plan.refused],
        "changed_views": list(plan.changed_views),
        "subjects": [asdict(s) | {"consequence": s.consequence.value} for s in plan.subjects],
        "commands": list(planned.commands),
    }

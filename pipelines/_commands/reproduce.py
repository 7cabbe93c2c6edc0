"""`lockstep reproduce`: published results, and what comes out here, figure by figure."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

import click

from lockstep.errors import Refused
from lockstep.training.reproduction import (
    Figure,
    Publication,
    PublishedEvents,
    PublishedModel,
    Size,
    measure,
    outside,
    prepare,
)
from lockstep.views import load_use_case
from pipelines._commands.progress import Reporter, reporter
from pipelines._use_case import load_module

_COLUMNS = ("model", "split", "metric", "published", "ours", "difference", "tolerance", "within")
_LEFT = 3  # the columns of words stand on the left, those of numbers on the right


class PublishedResults(Protocol):
    """What a use case's `published_results` module offers.

    Attributes:
        PUBLICATION: the results.
    """

    PUBLICATION: Publication

    def make_events(self) -> PublishedEvents:
        """Return what they are of."""
        ...


@dataclass(frozen=True)
class Reproduced:
    """What came out.

    Attributes:
        sizes: how many rows there are, by split.
        figures: of the models that ran.
        not_run: the models that cannot be made here.
    """

    publication: Publication
    sizes: Mapping[str, Size]
    figures: tuple[Figure, ...]
    not_run: tuple[PublishedModel, ...]


def reproduce_results(package: str, *, as_json: bool) -> None:
    """Print the published figures and ours.

    Raises:
        BadInput: the use case has no published results.
        Refused: the rows are not as many as published, or a figure is too far from the published one.
    """
    done = reproduce(package, reporter(sys.stderr if as_json else sys.stdout))
    click.echo(json.dumps(document(done), indent=2) if as_json else "\n".join(["", *lines(done)]))
    if wrong := outside(done.figures):
        raise Refused(
            f"{len(wrong)} of {len(done.figures)} figures are too far from the published ones: "
            + "; ".join(f"{f.model}, {f.split}, {f.metric}: {f.ours:.3f} for {f.published:.3f}" for f in wrong),
            hint="the rows are as many as published: is it a feature, or another release of what is fitted?",
        )


def reproduce(package: str, progress: Reporter) -> Reproduced:
    """Make the results of a use case again.

    Raises:
        BadInput: it has none.
        Refused: the rows are not as many as published.
    """
    use_case = load_use_case(package)
    published = load_results(package)
    publication = published.PUBLICATION
    with progress.stage("events"):
        events = published.make_events()
    with progress.stage("features") as stage:
        prepared = prepare(use_case, package, publication, events)
        for split, size in prepared.sizes.items():
            stage.say(f"{split}: {size.rows:,} rows, {size.positives:,} positive")
    if prepared.sizes != publication.sizes:
        raise Refused(
            f"there are {_told(prepared.sizes)}; published are {_told(publication.sizes)}",
            hint="the events, the days or the protocol are not the published ones: no figure can be compared",
        )
    figures: list[Figure] = []
    for model in publication.models:
        if model.importable:
            with progress.stage(model.name):
                figures += measure(prepared, model)
    not_run = tuple(model for model in publication.models if not model.importable)
    return Reproduced(publication, prepared.sizes, tuple(figures), not_run)


def load_results(package: str) -> PublishedResults:
    """Return the published results of a use case.

    Raises:
        BadInput: it has none, or the module lacks something.
    """
    needed = ("PUBLICATION", "make_events")
    return cast("PublishedResults", load_module(package, "published_results", "no published results", needed))


def lines(done: Reproduced) -> list[str]:
    """Return what came out as a table: the test first, then what was fitted on."""
    names = {"auc": "AUC", "average_precision": "AP", "entity_precision": f"P@{done.publication.protocol.top}"}
    by_split = sorted(done.figures, key=lambda figure: figure.split)
    rows = [_COLUMNS, *(_row(figure, names[figure.metric]) for figure in by_split)]
    told = [f"published: {done.publication.where}", f"rows:      {_told(done.sizes)}, as published", ""]
    told += _aligned(rows)
    told += [f"{model.name}  not run: {_why_not(model)}" for model in done.not_run]
    far = len(outside(done.figures))
    return [*told, "", f"{len(done.figures) - far} of {len(done.figures)} figures within their tolerance"]


def document(done: Reproduced) -> dict[str, Any]:
    """Return what came out for machines."""
    return {
        "published": done.publication.where,
        "rows": {split: asdict(size) for split, size in done.sizes.items()},
        "top": done.publication.protocol.top,
        "figures": [asdict(f) | {"difference": f.difference, "within": f.within} for f in done.figures],
        "not_run": {model.name: _why_not(model) for model in done.not_run},
    }


def _row(figure: Figure, metric: str) -> tuple[str, ...]:
    return (
        figure.model,
        figure.split,
        metric,
        f"{figure.published:.3f}",
        f"{figure.ours:.4f}",
        f"{figure.difference:+.4f}",
        f"{figure.tolerance:.3f}",
        "yes" if figure.within else "NO",
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < _LEFT else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _why_not(model: PublishedModel) -> str:
    return f"there is no module {model.module} here; `uv pip install {model.distribution}` brings it"


def _told(sizes: Mapping[str, Size]) -> str:
    return ", ".join(f"{size.rows:,} to {split} on ({size.positives:,} positive)" for split, size in sizes.items())

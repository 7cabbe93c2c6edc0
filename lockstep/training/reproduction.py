"""Published results, made again: their events and days, our features, protocol and metrics.

Nothing between the events and the metrics is made for this: the contract is compiled, rows are divided, features are worked out
by the exact clock, the policy is applied and scores are measured by what training uses.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa

from lockstep.contract import TrainingCut
from lockstep.errors import BadInput
from lockstep.serving.features import load_functions
from lockstep.threads import one_thread
from lockstep.training.clocks import exact_vectors
from lockstep.training.contract import compile_contract
from lockstep.training.evaluation.document import Metrics
from lockstep.training.evaluation.evaluate import metrics
from lockstep.training.fit import Given, given, score, scored
from lockstep.training.protocol import TEST, TRAIN
from lockstep.training.span import Span
from lockstep.training.spine import divide_checked
from lockstep.views.declare import FeatureService, StoredView
from lockstep.views.use_case import ModelRecipe, Protocol, UseCase


@dataclass(frozen=True)
class Size:
    """How many rows a split has, and how many of them are positive."""

    rows: int
    positives: int


@dataclass(frozen=True)
class PublishedModel:
    """A model of somebody else's, and how good they say it is.

    Attributes:
        name: what they call it.
        estimators: each makes an unfitted one with `predict_proba`; what is compared is the mean of their metrics.
        metrics: the published ones, by split.
        tolerance: how far ours may be from a published one.
        module: what the estimators are imported from, if it is nothing that is installed with the library.
        distribution: what brings that module.
    """

    name: str
    estimators: tuple[Callable[[], Any], ...]
    metrics: Mapping[str, Metrics]
    tolerance: float
    module: str = ""
    distribution: str = ""

    @property
    def importable(self) -> bool:
        """Whether its estimators can be made here."""
        return not self.module or find_spec(self.module) is not None


@dataclass(frozen=True)
class Publication:
    """Results that somebody has published, and how they come about.

    Attributes:
        where: where they are to be read.
        service: our features that are theirs.
        span: the days of train and test; labels are known one gap between the two after their event.
        protocol: how they judge.
        sizes: how many rows they have, by split.
        models: what they compare.
    """

    where: str
    service: FeatureService
    span: Span
    protocol: Protocol
    sizes: Mapping[str, Size]
    models: tuple[PublishedModel, ...]


@dataclass(frozen=True)
class PublishedEvents:
    """What the results are of.

    Attributes:
        sources: the rows of each source that the service's views have, by table.
        spine: what the recipe's own SQL gives for the publication's span: entity rows with their labels, in the published order.
        places: by table, the spine's column that says where in that source each of its rows stands; of events at one time,
            those before it there count.
    """

    sources: Mapping[str, pa.Table]
    spine: pa.Table
    places: Mapping[str, str]


@dataclass(frozen=True)
class Prepared:
    """What the published models are fitted on and judged by."""

    recipe: ModelRecipe
    splits: Mapping[str, Given]

    @property
    def sizes(self) -> dict[str, Size]:
        """How many rows there are, by split."""
        return {split: Size(len(held.labels), int(held.labels.sum())) for split, held in self.splits.items()}


@dataclass(frozen=True)
class Figure:
    """One published number and ours.

    Attributes:
        metric: a field of `Metrics`.
    """

    model: str
    split: str
    metric: str
    published: float
    ours: float
    tolerance: float

    @property
    def difference(self) -> float:
        """Ours less the published one."""
        return self.ours - self.published

    @property
    def within(self) -> bool:
        """Whether the difference is tolerated."""
        return abs(self.difference) <= self.tolerance


def prepare(use_case: UseCase, package: str, publication: Publication, events: PublishedEvents) -> Prepared:
    """Return the rows to train and to test on, with their features by the exact clock.

    Args:
        use_case: declares the views, and names the label and when it was known.
        package: the one that has its on-demand functions.
        publication: what is made again.
        events: of what.

    Raises:
        BadInput: a source or column is missing, or a row is where the span has none.
        SchemaDrift: a source is not what its view declares.
    """
    recipe = replace(use_case.model, service=publication.service, fallback=None, protocol=publication.protocol)
    span = publication.span
    known_at = span.end + (span.test_start - span.train_end)
    cut = TrainingCut(tables=(), spine_hash="", known_at=known_at)
    contract = compile_contract(replace(use_case, model=recipe), publication.service.name, cut)

    def source(view: StoredView) -> pa.Table:
        if view.source.table not in events.sources:
            raise BadInput(
                f"the published events have no {view.source.table}, the source of view {view.name}",
                hint=f"they have {', '.join(sorted(events.sources))}",
            )
        return events.sources[view.source.table]

    if lacking := sorted(set(events.places.values()) - set(events.spine.column_names)):
        raise BadInput(f"the spine lacks {', '.join(lacking)}", hint="it says where in its source each row stands")
    rows, _ = divide_checked(contract, recipe, span, events.spine, known_at)
    before = {table: rows[column].cast(pa.int64()).to_numpy() for table, column in events.places.items()}
    vectors = exact_vectors(use_case, contract, load_functions(contract, package), rows, source, before)
    return Prepared(recipe, {split: given(recipe, contract, rows, split, vectors) for split in (TRAIN, TEST)})


def measure(prepared: Prepared, model: PublishedModel) -> tuple[Figure, ...]:
    """Fit a published model and return its figures beside the published ones."""
    with one_thread():
        found = [_measure(prepared, make()) for make in model.estimators]
    return tuple(
        Figure(
            model=model.name,
            split=split,
            metric=metric,
            published=getattr(published, metric),
            ours=float(np.mean([getattr(of[split], metric) for of in found])),
            tolerance=model.tolerance,
        )
        for split, published in model.metrics.items()
        for metric in Metrics.model_fields
    )


def outside(figures: Iterable[Figure]) -> list[Figure]:
    """Return those that differ by more than is tolerated."""
    return [figure for figure in figures if not figure.within]


def _measure(prepared: Prepared, estimator: Any) -> dict[str, Metrics]:
    recipe, train = prepared.recipe, prepared.splits[TRAIN]
    estimator.fit(train.vectors, train.labels)
    return {
        # Some estimators answer in float32.
        split: metrics(scored(recipe, held, score(estimator, held.vectors).astype(np.float64)), recipe.protocol.top)
        for split, held in prepared.splits.items()
    }

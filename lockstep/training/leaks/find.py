"""Look for every leak in a training set and the model that was fitted on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lockstep.clock import MICROSECOND, to_micros
from lockstep.contract import FeatureContract
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange
from lockstep.offline.cut import Cut
from lockstep.settings import Settings
from lockstep.threads import one_thread
from lockstep.training.fit import score
from lockstep.training.leaks.alarm import Alarm
from lockstep.training.leaks.flips import flip_leaks, outcome_columns
from lockstep.training.leaks.judged import not_judged, one_feature, too_good
from lockstep.training.leaks.null_test import shuffled_labels
from lockstep.training.leaks.repeat import not_repeatable
from lockstep.training.leaks.sources import sampled_rows, source_rows
from lockstep.training.leaks.spine import SpineProbe
from lockstep.training.leaks.spine_tables import open_tables
from lockstep.training.leaks.stored import Audit, audit
from lockstep.training.protocol import SPLIT, TEST, TRAIN
from lockstep.training.span import Span
from lockstep.views.declare import EVENT_TIMESTAMP
from lockstep.views.latest import LatestView
from lockstep.views.use_case import UseCase
from lockstep.views.windowed import WindowedView

_STORED_ROWS = 400
_FLIPPED_ROWS = 300
_FITTED_ROWS = 20_000
_OFF_THE_HOUR_US = timedelta(hours=7, minutes=13) // MICROSECOND


@dataclass(frozen=True)
class Search:
    """What a search for leaks found.

    Attributes:
        alarms: the leaks; none, and the model may be registered.
        stored: how many rows of each view's table were held against its source.
        unexplained: for each `view:feature` how many of these are not what is declared and yet none of the leaks looked for.
        not_judged: in a sentence each, what was not looked for, and why.
    """

    alarms: tuple[Alarm, ...]
    stored: Mapping[str, int]
    unexplained: Mapping[str, int]
    not_judged: tuple[str, ...] = ()


def _as_they_are(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors


@dataclass(frozen=True)
class Suspect:
    """A training set and the model that was fitted on it.

    Attributes:
        contract: what the set was made from and how.
        rows: of the set, in any order.
        vectors: the features of these rows in the contract's order, as they were retrieved, NaN for null.
        estimator: the fitted one.
        prepare: what is done to vectors before an estimator gets them, when it is fitted and when it is asked.
    """

    contract: FeatureContract
    rows: pa.Table
    vectors: NDArray[np.float64]
    estimator: Any
    prepare: Callable[[NDArray[np.float64]], NDArray[np.float64]] = _as_they_are

    def score(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the fitted model's scores."""
        with one_thread():
            return score(self.estimator, self.prepare(vectors))

    def of(self, split: str) -> NDArray[np.bool_]:
        """Return which rows are in a split."""
        return self.rows[SPLIT].to_numpy() == split

    @property
    def snapshots(self) -> dict[str, int]:
        """The snapshot of each table that the set was cut from."""
        return self.contract.cut.snapshots


def find_leaks(settings: Settings, use_case: UseCase, lake: Lake, suspect: Suspect, *, seed: int = 0) -> Search:
    """Return every leak of a training set by name.

    Raises:
        UseCaseError: the spine's label is not called so in any of its tables, or one of them is no source and no view.
    """
    recipe, rows = use_case.model, suspect.rows
    labels = rows[recipe.label].to_numpy()
    train, test = suspect.of(TRAIN), suspect.of(TEST)
    names = [f"{feature.view}:{feature.name}" for feature in suspect.contract.features]
    audits = {view.name: _audit(settings, use_case, lake, suspect, view, seed) for view in _audited(use_case, suspect)}
    prepared = suspect.prepare(suspect.vectors)
    picked = np.random.default_rng(seed).permutation(np.flatnonzero(train))[:_FITTED_ROWS]

    def fit(given: NDArray[np.int64]) -> NDArray[np.float64]:
        with one_thread():
            return score(recipe.estimator().fit(prepared[picked], given), prepared[test])

    alarms = [
        *_spine_leaks(settings, use_case, lake, suspect, seed),
        *(alarm for done in audits.values() for alarm in done.alarms),
        *_flip_leaks(settings, use_case, lake, suspect),
        *one_feature(recipe.ceilings, labels[test], suspect.vectors[test], names),
        *too_good(recipe.ceilings, labels[test], suspect.score(suspect.vectors[test])),
        *_repeated(settings, use_case, suspect),
        *shuffled_labels(fit, labels[picked], labels[test], seed),
    ]
    by_place = {(alarm.name, alarm.subject): alarm for alarm in reversed(alarms)}
    unexplained = {f"{view}:{feature}": n for view, done in audits.items() for feature, n in done.unexplained.items()}
    stored = {view: done.rows for view, done in audits.items()}
    return Search(tuple(reversed(by_place.values())), stored, unexplained, not_judged(labels[test]))


def _audited(use_case: UseCase, suspect: Suspect) -> list[WindowedView | LatestView]:
    """Return the views whose values can be worked out again without an engine."""
    views = (use_case.view(view.name) for view in suspect.contract.views)
    return [view for view in views if isinstance(view, WindowedView | LatestView)]


def _spine_leaks(settings: Settings, use_case: UseCase, lake: Lake, suspect: Suspect, seed: int) -> list[Alarm]:
    contract, recipe = suspect.contract, use_case.model
    span = Span.of(recipe, contract.cut.known_at)
    parameters = {"start": span.start, "end": span.end, "known_at": contract.cut.known_at}
    keys = [key.name for key in contract.join_keys]
    with open_tables(settings, lake, use_case, keys, suspect.snapshots, parameters) as tables:
        probe = SpineProbe(
            tables=tables,
            rows=suspect.rows,
            inputs=[column.name for column in contract.request_inputs],
            gap_us=recipe.gap // MICROSECOND,
            cut_us=_middle(span),
            sampled_us=(to_micros(span.test_start), to_micros(span.end)),
            seed=seed,
        )
        return probe.alarms()


def _middle(span: Span) -> int:
    """Return the middle of the held-out days and some hours, in microseconds: what SQL groups by day or hour lies across it."""
    return (to_micros(span.test_start) + to_micros(span.end)) // 2 + _OFF_THE_HOUR_US


def _audit(
    settings: Settings, use_case: UseCase, lake: Lake, suspect: Suspect, view: WindowedView | LatestView, seed: int
) -> Audit:
    span, recipe = Span.of(use_case.model, suspect.contract.cut.known_at), use_case.model
    within = TimeRange(EVENT_TIMESTAMP, span.start, span.end)
    picked = np.random.default_rng(seed).permutation(suspect.rows.num_rows)[: _STORED_ROWS // 2]
    asked = suspect.rows.select([view.entity.join_key, EVENT_TIMESTAMP]).take(pa.array(picked))
    stored = sampled_rows(settings, lake, view, suspect.snapshots, within, asked, _STORED_ROWS, seed)
    source = source_rows(settings, lake, view, suspect.snapshots, stored[view.entity.join_key])
    return audit(view, recipe.label, stored, source, tolerated=recipe.ceilings.not_as_declared)


def _flip_leaks(settings: Settings, use_case: UseCase, lake: Lake, suspect: Suspect) -> list[Alarm]:
    views, outcome = [use_case.view(view.name) for view in suspect.contract.views], outcome_columns(use_case.model)
    if not any(outcome.intersection(lake.schema(view.source.table).names) for view in views):
        return []
    span = Span.of(use_case.model, suspect.contract.cut.known_at)
    time = suspect.rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    before = np.flatnonzero(suspect.of(TEST) & (time < _middle(span)))
    last = before[np.argsort(time[before], kind="stable")][-_FLIPPED_ROWS:]
    rows = suspect.rows.take(pa.array(last))
    sources = {
        view.name: source_rows(settings, lake, view, suspect.snapshots, rows[view.entity.join_key], outcome)
        for view in views
    }
    return flip_leaks(use_case, suspect.contract, sources, rows, suspect.score)


def _repeated(settings: Settings, use_case: UseCase, suspect: Suspect) -> list[Alarm]:
    # A step that reads the set from the lake does without Feast's 4 s until here.
    from lockstep.offline.history import training_features  # noqa: PLC0415

    contract, rows = suspect.contract, suspect.rows
    features = [feature.name for feature in contract.features]
    cut = Cut({view.table: suspect.snapshots[view.table] for view in contract.views}, contract.cut.known_at)
    spine = rows.drop_columns([*features, SPLIT])
    again = training_features(settings, use_case, contract.feature_service, spine, cut).rows
    return not_repeatable(rows.select(features), again.select(features))

"""The evaluation of one model: an immutable, hashed document with every number that a model owner or a gate asks for.

Its parts are computed by the modules beside this one; what the model is, and what it was trained on, is told by training.
"""

from datetime import date, datetime
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict

from lockstep.hashing import digest

EVALUATION_VERSION = 1
CONFIDENCE = 0.95

Curve = tuple[tuple[float, float], ...]
"""Points (x, y) of a line in the unit square."""


class _Frozen(BaseModel):
    """What cannot be computed is None: a NaN is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelNamed(_Frozen):
    """A model, by what it is; `version` is None until it is registered."""

    name: str
    digest: str
    contract: str
    version: int | None = None


class Stretch(_Frozen):
    """Event times from `start` up to but without `end`, and the rows in it."""

    start: datetime
    end: datetime
    rows: int
    positives: int


class TrainingSetUsed(_Frozen):
    """What the model was fitted and judged on.

    Attributes:
        table: the training set's table in the lake.
        known_at: the set holds what was known then.
        train: what was fitted on.
        test: what was held out.
        left_out: rows of these days that are in neither, by why.
        snapshots: of each table that the set was read from.
    """

    table: str
    known_at: datetime
    train: Stretch
    test: Stretch
    left_out: dict[str, int]
    snapshots: dict[str, int]


class Rules(_Frozen):
    """By which rules a model was judged: those of its recipe then. Whoever relies on the numbers holds today's against them.

    Attributes:
        label: the label's column, and the one that says when it was known.
        train_s: seconds of event time that were fitted on; likewise the gap and the test.
        protocol: who was left out, and who is looked at.
        ceilings: what no honest model reaches.
        decision: the score from which on a row counts as positive.
    """

    label: tuple[str, str]
    train_s: float
    gap_s: float
    test_s: float
    protocol: dict[str, str | int | bool]
    ceilings: dict[str, float]
    decision: float


class Interval(_Frozen):
    """A 95 % percentile interval, of this many bootstrap replicates."""

    low: float
    high: float
    replicates: int


class Estimate(_Frozen):
    """A number and how sure it is; `interval` is None where the bootstrap cannot tell."""

    value: float
    interval: Interval | None


class Metrics(_Frozen):
    """The three numbers by which two models, or one model in two circumstances, are compared."""

    average_precision: float
    auc: float
    entity_precision: float


class DayPrecision(_Frozen):
    """The top entities of one UTC day.

    Attributes:
        entities: those with rows that day that were not found on a day before.
        positives: how many of them are positive that day.
        found: how many of these are among the top.
        precision: the found, over how many can be looked at.
    """

    day: date
    entities: int
    positives: int
    found: int
    precision: float


class EntityPrecision(_Frozen):
    """What who can look at `top` entities a day finds.

    Attributes:
        precision: the mean of the days.
        ceiling: the same of a perfect ranking; below 1 where a day has fewer positive entities than `top`.
        no_skill: the same of a guess.
    """

    top: int
    precision: float
    ceiling: float
    no_skill: float
    days: tuple[DayPrecision, ...]


class CalibrationBin(_Frozen):
    """The rows whose scores lie in `[low, high)`, the last bin's `high` included."""

    low: float
    high: float
    rows: int
    mean_score: float
    positives: int

    @property
    def share(self) -> float:
        """The share of positives."""
        return self.positives / self.rows


class Calibration(_Frozen):
    """Whether scores are probabilities.

    Attributes:
        brier: the mean squared distance of score and label.
        brier_no_skill: the same if every score were the share of positives.
        expected_error: the mean distance of a bin's mean score and its share of positives, weighted by rows.
        mean_score: of all rows.
        share: of positives.
        bins: from the lowest scores to the highest.
    """

    brier: float
    brier_no_skill: float
    expected_error: float
    mean_score: float
    share: float
    bins: tuple[CalibrationBin, ...]


class Decision(_Frozen):
    """Where scores become decisions: rows with at least the threshold, and how many of them are among the positives."""

    threshold: float
    flagged: int
    found: int
    positives: int

    @property
    def precision(self) -> float | None:
        """The share of positives among the flagged; None if nothing is flagged."""
        return self.found / self.flagged if self.flagged else None

    @property
    def recall(self) -> float:
        """The share of the positives that is flagged."""
        return self.found / self.positives


class GroupRecall(_Frozen):
    """Positives of one kind: how many reach the threshold, and how many are found by who looks at each day's top entities."""

    group: int
    positives: int
    above_threshold: int
    in_top: int


class Performance(_Frozen):
    """How good a model is on the held-out rows that count.

    Attributes:
        no_skill: the share of positives, which is the average precision of a guess.
        entity_precision: the mean of `daily`, with its interval.
        seed: of the bootstrap.
    """

    rows: int
    positives: int
    entities: int
    no_skill: float
    average_precision: Estimate
    auc: Estimate
    entity_precision: Estimate
    daily: EntityPrecision
    calibration: Calibration
    decision: Decision
    groups: tuple[GroupRecall, ...]
    roc: Curve
    precision_recall: Curve
    seed: int

    @property
    def metrics(self) -> Metrics:
        """The three numbers alone."""
        return Metrics(
            average_precision=self.average_precision.value,
            auc=self.auc.value,
            entity_precision=self.entity_precision.value,
        )


class Comparison(_Frozen):
    """The model against the champion on the same rows, or against a guess where there is no champion.

    Attributes:
        champion: None if it is a guess.
        metrics: the champion's, or the guess's.
        average_precision: the model's less the champion's; the interval is of the paired difference.
        auc: the same.
        entity_precision: the same.
        incomparable: why there is a champion and it is not compared with; None where it is, or where there is none.
    """

    champion: ModelNamed | None
    metrics: Metrics
    average_precision: Estimate
    auc: Estimate
    entity_precision: Estimate
    incomparable: str | None = None


class FeatureImportance(_Frozen):
    """The average precision lost when the feature is shuffled, and the standard deviation over the shuffles."""

    view: str
    feature: str
    loss: float
    deviation: float


class Importance(_Frozen):
    """Permutation importance, the greatest loss first, on this many rows."""

    rows: int
    repeats: int
    seed: int
    features: tuple[FeatureImportance, ...]


class ViewPrice(_Frozen):
    """What it costs that a view is served as late as it is.

    Attributes:
        late_s: how much later than its events a row of it is served, in seconds.
        average_precision: lost, compared with the view served at once; below 0 if the late values do better.
    """

    view: str
    late_s: float
    average_precision: float


class Clocks(_Frozen):
    """How good the recipe is, fitted and judged with values as they are served, and with values of each row's own time.

    Attributes:
        metrics: by the clock's name.
        prices: by view, what its being late costs.
    """

    metrics: dict[str, Metrics]
    prices: tuple[ViewPrice, ...]


class Alarm(_Frozen):
    """Something that no honest training set or model shows.

    Attributes:
        name: which check found it.
        subject: the feature, split or metric it is about.
        evidence: in words, with the numbers.
    """

    name: str
    subject: str
    evidence: str


class Fallback(_Frozen):
    """The model that answers while a view that must not be late is: with which features, and how good it is."""

    model: ModelNamed
    service: str
    features: tuple[str, ...]
    metrics: Metrics


class Audit(_Frozen):
    """What of the views' tables was held against their sources, in search of leaks.

    Attributes:
        rows: how many rows of each windowed view's table.
        unexplained: by `view:feature`, how many of them are not what is declared, though no leak: parity says what they are.
        not_judged: what too few rows said too little about, in a sentence each.
    """

    rows: dict[str, int]
    unexplained: dict[str, int]
    not_judged: tuple[str, ...] = ()


class Evaluation(_Frozen):
    """All that is known of how good a model is; `clocks`, `importance` and `fallback` are None where nobody looked."""

    version: Literal[1] = EVALUATION_VERSION
    created_at: datetime
    model: ModelNamed
    rules: Rules
    training_set: TrainingSetUsed
    performance: Performance
    comparison: Comparison
    importance: Importance | None
    clocks: Clocks | None
    fallback: Fallback | None
    alarms: tuple[Alarm, ...]
    audit: Audit | None = None

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON: the document's name."""
        return digest(self.model_dump(mode="json"))

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, no spaces."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS).decode()

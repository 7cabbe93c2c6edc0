"""The parity report: one immutable, hashed document that names the model, the sample, every number and the verdict."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from lockstep.hashing import digest
from lockstep.parity.cause import EXCUSED
from lockstep.parity.compare import SAME_SCORE
from lockstep.parity.verdict import Verdict

REPORT_VERSION = 1
SCORE_BINS = 20

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


class ModelNamed(_Frozen):
    """The model that served; its digest and contract are what a verdict is bound to."""

    name: str
    version: int
    digest: str
    contract: str


class Sampled(_Frozen):
    """How many rows were compared.

    Attributes:
        served: rows of the model in the window.
        uniform: rows of the uniform sample.
        required: rows that the limit needs.
        stratified: rows of the stratified sample.
        compared_values: vector and stored values held against the lake and training.
        seed: what the samples were drawn by; it follows from the model and whose rows they are, unless somebody gave another one.
    """

    served: Count
    uniform: Count
    required: Count
    stratified: Count
    compared_values: Count
    seed: Count


class FeatureRate(_Frozen):
    """How one feature fared in the uniform sample; it names, it does not judge.

    Attributes:
        compared: rows.
        differing: rows in which it differs.
        causes: rows in which it differs, by cause; a row counts once for each of its causes.
    """

    name: str
    view: str
    compared: Count
    differing: Count
    causes: dict[str, Count]

    @property
    def mismatches(self) -> int:
        """Rows in which it differs for a cause that excuses nothing; at most `differing`, for a row may have two."""
        return min(self.differing, sum(rows for cause, rows in self.causes.items() if cause not in EXCUSED))


class HourCompared(_Frozen):
    """How one UTC hour of request times fared, over all compared rows.

    Attributes:
        hour: when it begins.
        rows: compared rows.
        mismatches: rows that are mismatches.
        excused: rows that differ for excused causes only.
    """

    hour: AwareDatetime
    rows: Count
    mismatches: Count
    excused: Count


class ScoreShift(_Frozen):
    """What the differences do to predictions: served scores against the model's scores of the training vectors.

    Attributes:
        rows: rows of the uniform sample, without those that training would leave out by the policy: no score is expected of them.
        changed: rows whose two scores are not the same number, rounding aside.
        threshold: the score from which on a row counts as positive.
        flipped: rows whose two scores lie on different sides of it.
        mean_shift: of |served - expected|, over all rows.
        largest_shift: of |served - expected|.
        served: histogram of the served scores: rows in each of 20 equal bins of [0, 1].
        expected: the same of the expected scores.
    """

    rows: Count
    changed: Count
    threshold: float
    flipped: Count
    mean_shift: float
    largest_shift: float
    served: tuple[Count, ...]
    expected: tuple[Count, ...]

    @classmethod
    def between(cls, served: Sequence[float], expected: Sequence[float], threshold: float) -> "ScoreShift | None":
        """Hold served scores against expected ones, row by row; None of no rows."""
        if not served:
            return None
        shifts = [abs(s - e) for s, e in zip(served, expected, strict=True)]
        return cls(
            rows=len(served),
            changed=sum(shift > SAME_SCORE for shift in shifts),
            threshold=threshold,
            flipped=sum((s >= threshold) != (e >= threshold) for s, e in zip(served, expected, strict=True)),
            mean_shift=math.fsum(shifts) / len(shifts),  # the exact sum: the report's hash depends on no order of rows
            largest_shift=max(shifts),
            served=_histogram(served),
            expected=_histogram(expected),
        )


def _histogram(scores: Iterable[float]) -> tuple[int, ...]:
    bins = Counter(min(int(score * SCORE_BINS), SCORE_BINS - 1) for score in scores)
    return tuple(bins[n] for n in range(SCORE_BINS))


class Stratum(_Frozen):
    """How one stratum fared."""

    name: str
    rows: Count
    mismatches: Count


class DifferenceFound(_Frozen):
    """One difference, with its cause and evidence."""

    row: str
    kind: str
    view: str
    feature: str | None
    served: Any
    expected: Any
    cause: str
    evidence: str


class ParityReport(_Frozen):
    """What `lockstep` knows about one model's parity in one window.

    Attributes:
        since: first request time judged.
        until: end of the request times judged.
        newest: the last request time of a compared row; None where there is none.
        shadow: whether the rows were a shadow replay.
        read: by table, the snapshot of the served log and of the views' tables that was read.
        ledger: by stored view, the hash of what the ledger says up to `until`.
        limit: the mismatch rate to be excluded at `confidence`.
        excused: rows of the uniform sample that differ for excused causes only; they are no evidence of equality.
        rejected: rows of the uniform sample that serving did not answer, because the policy rejects them.
        foreign: rows of the model in the window that name a contract which is not the model's, or none.
        lost: the share of the window's rows in the served log that never arrived, of the process that lost most.
        present: per stored view, rows of the uniform sample for which a row was read and used.
        intervals: per stored view, how many committed intervals the uniform sample was read from.
        upper_bound: of the mismatch rate, one-sided Clopper-Pearson.
        causes: how many differences of each cause, over both samples.
        differences: a hundred at most: unexcused ones first, and the first of each kind before the second of any.
        hours: the hours in which rows were compared, in order.
        scores: what the differences do to predictions; None where no row was compared, or training would have none of them.
    """

    version: Literal[1] = REPORT_VERSION
    project: str
    created: AwareDatetime
    model: ModelNamed
    shadow: bool
    since: AwareDatetime
    until: AwareDatetime
    newest: AwareDatetime | None = None
    sample: Sampled
    read: dict[str, int]
    ledger: dict[str, str]
    limit: float
    confidence: float
    mismatches: Count
    excused: Count
    stratum_mismatches: Count
    rejected: Count
    foreign: Count
    lost: float
    present: dict[str, Count]
    intervals: dict[str, Count]
    upper_bound: float
    verdict: Verdict
    reasons: tuple[str, ...]
    features: tuple[FeatureRate, ...]
    strata: tuple[Stratum, ...]
    causes: dict[str, Count]
    differences: tuple[DifferenceFound, ...]
    hours: tuple[HourCompared, ...] = ()
    scores: ScoreShift | None = None

    @model_validator(mode="after")
    def _counts_rows_of_the_sample(self) -> Self:
        rows = self.sample.uniform
        if self.mismatches + self.excused > rows or self.rejected > rows:
            raise ValueError(f"more rows are mismatches, excused or rejected than the {rows} of the uniform sample")
        return self

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON: the report's name."""
        return digest(self.model_dump(mode="json"))

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, no spaces."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS).decode()

    def age(self, now: datetime) -> timedelta:
        """Return how long ago it was made."""
        return now - self.created

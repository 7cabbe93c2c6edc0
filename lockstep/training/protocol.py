"""Which entity rows a model is fitted and judged on: what was known in time, and what nobody would have asked about."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lockstep.clock import MICROSECOND, to_micros
from lockstep.errors import BadInput
from lockstep.training.span import Span
from lockstep.views.declare import DAY, EVENT_TIMESTAMP
from lockstep.views.use_case import ModelRecipe

SPLIT = "split"
TRAIN = "train"
TEST = "test"
DAY_US = DAY // MICROSECOND


@dataclass(frozen=True)
class LeftOut:
    """How many rows of the spine are in neither split.

    Attributes:
        gap: their event lies in the gap between the two.
        label_unknown: their event lies in the days to train on, and their label was not known when the test begins.
        known: their entity was already known to be positive when their day, one of those held out, began.
    """

    gap: int
    label_unknown: int
    known: int


def divide(recipe: ModelRecipe, span: Span, spine: pa.Table) -> tuple[pa.Table, LeftOut]:
    """Return the rows to train and to test on, with their split, and how many are in neither.

    Args:
        recipe: its protocol says who is left out.
        span: the times of the two splits.
        spine: entity rows with their labels and when these became known, all of the span.
    """
    times, known = _micros(spine, EVENT_TIMESTAMP), _micros(spine, recipe.label_known_at)
    early, late = times < to_micros(span.train_end), times >= to_micros(span.test_start)
    in_time = known <= to_micros(span.test_start)
    blocked = np.zeros(len(times), dtype=np.bool_)
    if recipe.protocol.leave_known_out:
        blocked = _known_before_its_day(spine, recipe, times, known)
    train, test = early & in_time, late & ~blocked
    left_out = LeftOut(
        gap=int((~early & ~late).sum()), label_unknown=int((early & ~in_time).sum()), known=int((late & blocked).sum())
    )
    split = pa.array(np.where(train, TRAIN, TEST), pa.string())
    return spine.append_column(SPLIT, split).filter(pa.array(train | test)), left_out


def require_labels(recipe: ModelRecipe, spine: pa.Table, known_at: datetime) -> None:
    """Refuse labels that were not known yet, and kinds of positives that contradict them.

    Raises:
        BadInput: a label became known after `known_at`, or before its event; or a row is positive and of no kind, or the other
            way round.
    """
    times, known = _micros(spine, EVENT_TIMESTAMP), _micros(spine, recipe.label_known_at)
    if future := int((known > to_micros(known_at)).sum()):
        raise BadInput(
            f"{future} labels of the spine became known after {known_at.isoformat()}",
            hint=f"filter by {recipe.label_known_at} <= $known_at in the spine's SQL",
        )
    if early := int((known < times).sum()):
        raise BadInput(
            f"{early} labels of the spine became known before their event",
            hint=f"is {recipe.label_known_at} the time at which the label was known?",
        )
    if group := recipe.protocol.group:
        kinds, labels = spine[group].to_numpy(), spine[recipe.label].to_numpy()
        if wrong := int(((kinds != 0) != (labels == 1)).sum()):
            raise BadInput(
                f"{wrong} rows of the spine have a {group} that contradicts their {recipe.label}",
                hint="a negative is of kind 0, a positive of another",
            )


def _known_before_its_day(
    spine: pa.Table, recipe: ModelRecipe, times: NDArray[np.int64], known: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell of each row whether a positive label of its entity was known when the row's UTC day began."""
    entity = spine[recipe.protocol.entity].combine_chunks().dictionary_encode().indices.to_numpy()
    first = np.full(entity.max(initial=-1) + 1, np.iinfo(np.int64).max)
    positive = spine[recipe.label].to_numpy() == 1
    np.minimum.at(first, entity[positive], known[positive])
    return first[entity] < times - times % DAY_US


def _micros(spine: pa.Table, column: str) -> NDArray[np.int64]:
    return spine[column].cast(pa.int64()).to_numpy()

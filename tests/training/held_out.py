"""A held-out week made by hand or by chance, and evaluations of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_repo.definitions import use_case as fraud
from lockstep.clock import from_micros
from lockstep.training.evaluation.document import (
    Alarm,
    Clocks,
    Evaluation,
    Fallback,
    Importance,
    ModelNamed,
    Stretch,
    TrainingSetUsed,
)
from lockstep.training.evaluation.evaluate import Champion, Judging, evaluate
from lockstep.training.evaluation.scored import DAY_US, Scored
from lockstep.training.rules import rules_of

MONDAY = 17_700  # days since 1970
JUDGING = Judging(top=20, threshold=0.3, replicates=50)
RULES = rules_of(fraud.model)
CHALLENGER = ModelNamed(name="fraud", digest="d1" * 32, contract="c1" * 32)
CHAMPION = ModelNamed(name="fraud", digest="d0" * 32, contract="c0" * 32, version=3)


def scored_rows(rows: list[tuple[int, Any, int, float]], group: list[int] | None = None) -> Scored:
    """Held-out rows of (day, entity, label, score)."""
    days, entity, labels, scores = zip(*rows, strict=True)
    return Scored(
        times_us=(MONDAY + np.array(days, np.int64)) * DAY_US + np.arange(len(rows)),
        labels=np.array(labels, np.int64),
        scores=np.array(scores, np.float64),
        entity=np.array(entity),
        group=None if group is None else np.array(group, np.int64),
    )


def a_week(rows: int = 4_000, entities: int = 300, seed: int = 0) -> Scored:
    """A week in which one entity in ten has positives, of kinds 1 to 3; scores tell them apart, not perfectly."""
    chance = np.random.default_rng(seed)
    entity = chance.integers(entities, size=rows)
    labels = ((entity % 10 == 0) & (chance.random(rows) < 0.3)).astype(np.int64)
    return Scored(
        times_us=MONDAY * DAY_US + chance.integers(7 * DAY_US, size=rows),
        labels=labels,
        scores=1 / (1 + np.exp(-chance.normal(-4 + 3 * labels, 1.5))),
        entity=entity,
        group=labels * chance.integers(1, 4, size=rows),
    )


def champion_of(scored: Scored, noise: float = 1.0) -> Champion:
    """A champion that knows what the model knows, less well."""
    odds = np.log(scored.scores / (1 - scored.scores))
    return Champion(CHAMPION, 1 / (1 + np.exp(-odds - np.random.default_rng(3).normal(0, noise, scored.rows))))


def used() -> TrainingSetUsed:
    begin = from_micros(MONDAY * DAY_US)
    test = Stretch(start=begin, end=from_micros((MONDAY + 7) * DAY_US), rows=4_100, positives=150)
    return TrainingSetUsed(
        table="training_a1b2c3",
        known_at=from_micros((MONDAY + 14) * DAY_US),
        train=Stretch(start=from_micros((MONDAY - 28) * DAY_US), end=begin, rows=12_000, positives=400),
        test=test,
        left_out={"their event lies between the two": 1_200, "their entity was known": 100, "nobody": 0},
        snapshots={"transactions": 2**62, "spend": 7},
    )


def an_evaluation(
    champion: Champion | None = None,
    clocks: Clocks | None = None,
    fallback: Fallback | None = None,
    alarms: Sequence[Alarm] = (),
    importance: Importance | None = None,
) -> Evaluation:
    return evaluate(
        a_week(),
        JUDGING,
        rules=RULES,
        model=CHALLENGER,
        training_set=used(),
        created_at=from_micros((MONDAY + 14) * DAY_US),
        champion=champion,
        clocks=clocks,
        fallback=fallback,
        alarms=alarms,
        importance=importance,
    )

"""From which ticks the held-out days are answered, and which are needed before for views that are late."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import cast

from lockstep.skew.replay import Step, steps_of
from lockstep.skew.world import World

START, END = datetime(2018, 6, 16, tzinfo=UTC), datetime(2018, 6, 17, tzinfo=UTC)
HOUR, DAY, LAGS = timedelta(hours=1), timedelta(days=1), timedelta(minutes=10)


@dataclass(frozen=True)
class Pace:
    every: timedelta = HOUR
    lags: timedelta = LAGS


def steps(*lags: timedelta) -> list[Step]:
    return steps_of(cast("World", Pace()), START, END, lags)


def test_each_request_is_asked_once_what_is_visible_at_its_time_is_online() -> None:
    found = steps()
    assert found[0].start <= START
    assert found[-1].end >= END
    assert all(step.end == after.start for step, after in pairwise(found))
    assert all(step.start == step.tick + LAGS for step in found)
    assert {step.end - step.start for step in found} == {HOUR}


def test_late_views_need_ticks_before_hourly_for_a_day_and_daily_for_more() -> None:
    found = steps(HOUR, DAY, timedelta(days=7))
    assert found[0].start <= START - timedelta(days=7)
    lengths = [step.end - step.start for step in found if step.start < START - DAY - HOUR]
    assert set(lengths) == {DAY}
    assert {step.end - step.start for step in found if step.start >= START - DAY - HOUR + LAGS} == {HOUR}
    assert len(found) == len(steps()) + 24 + 6

"""Where the columns, lines and labels of the parity page's charts stand."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from lockstep.clock import EPOCH
from lockstep.parity.report import SCORE_BINS, HourCompared, ScoreShift
from lockstep.report.charts import HEIGHT, Chart, Column, Layer, Line, Mark, count_marks

LEAST_SEEN = 2.0
# A column may stand for several hours: narrow screens get fewer columns.
WIDE_COLUMNS, NARROW_COLUMNS = 180, 36
WIDE_LABELS, NARROW_LABELS = 8, 4
_STEPS = tuple(timedelta(hours=n) for n in (1, 2, 3, 6, 12, 24, 48, 72, 168, 336, 672, 1344, 2688, 5376, 10_752))


@dataclass(frozen=True)
class HourChart(Chart):
    """Compared rows over time; `span` says how long a column is."""

    span: str


def hour_chart(hours: Sequence[HourCompared], *, columns: int, labels: int) -> HourChart:
    """Return stacked columns of compared rows over time: mismatches at the bottom, where they are easiest to compare.

    Args:
        hours: at least one.
        columns: at most so many; each then spans several hours.
        labels: at most so many on the time axis.
    """
    first, last = hours[0].hour, hours[-1].hour + timedelta(hours=1)
    step = next((s for s in _STEPS if _up(last, s) - _down(first, s) <= columns * s), _STEPS[-1])
    begin, end = _down(first, step), _up(last, step)
    counts: defaultdict[datetime, list[int]] = defaultdict(lambda: [0, 0, 0])
    for hour in hours:
        parts = (hour.mismatches, hour.excused, hour.rows - hour.mismatches - hour.excused)
        counts[_down(hour.hour, step)] = [a + b for a, b in zip(counts[_down(hour.hour, step)], parts, strict=True)]
    top = max(map(sum, counts.values()))
    each = 100 * (step / (end - begin))
    drawn = tuple(
        Column(
            x=100 * ((at - begin) / (end - begin)), width=each, layers=_stack(parts, top), says=_says(at, step, parts)
        )
        for at, parts in sorted(counts.items())
    )
    return HourChart(drawn, (), _time_marks(begin, end, labels), count_marks(top), _span(step))


def score_chart(scores: ScoreShift) -> Chart:
    """Return expected scores as columns and served ones as an outline; heights are logarithms: high scores are rare."""
    top = max(*scores.served, *scores.expected)

    def y(rows: int) -> float:
        return HEIGHT * (1 - math.log1p(rows) / math.log1p(top))

    each = 100 / SCORE_BINS
    columns = tuple(
        Column(
            x=n * each,
            width=each,
            layers=(Layer("expected", y(expected), HEIGHT - y(expected)),) if expected else (),
            says=f"{n / SCORE_BINS:.2f} to {(n + 1) / SCORE_BINS:.2f}: {served:,} served, {expected:,} expected",
        )
        for n, (served, expected) in enumerate(zip(scores.served, scores.expected, strict=True))
    )
    heights = [HEIGHT, *(y(served) for served in scores.served), HEIGHT]
    flat = [Line(n * each, at, (n + 1) * each, at) for n, at in enumerate(heights[1:-1]) if at < HEIGHT]
    steep = [Line(n * each, a, n * each, b) for n, (a, b) in enumerate(pairwise(heights)) if a != b]
    powers = [10**n for n in range(len(str(top)))]
    return Chart(
        columns=columns,
        outline=(*flat, *steep),
        x_marks=tuple(Mark(100 * at, f"{at:g}") for at in (0, 0.25, 0.5, 0.75, 1)),
        y_marks=(Mark(HEIGHT, "0"), *(Mark(y(rows), f"{rows:,}") for rows in powers)),
    )


def _stack(parts: Sequence[int], top: int) -> tuple[Layer, ...]:
    """Return the layers of a column; one differing row of thousands is still seen."""
    mismatch, excused = (max(LEAST_SEEN, HEIGHT * rows / top) if rows else 0.0 for rows in parts[:2])
    whole = max(HEIGHT * sum(parts) / top, mismatch + excused)
    heights = {"mismatch": mismatch, "excused": excused, "equal": whole - mismatch - excused}
    layers: list[Layer] = []
    ground = float(HEIGHT)
    for kind, height in heights.items():
        ground -= height
        if height:
            layers.append(Layer(kind, ground, height))
    return tuple(layers)


def _says(at: datetime, step: timedelta, parts: Sequence[int]) -> str:
    mismatches, excused, equal = parts
    return (
        f"the {_span(step)} from {at:%-d %b %Y %H:%M} UTC: "
        f"{mismatches:,} mismatches, {excused:,} excused, {equal:,} equal"
    )


def _span(step: timedelta) -> str:
    unit, name = (
        (timedelta(days=1), "day") if step % timedelta(days=1) == timedelta(0) else (timedelta(hours=1), "hour")
    )
    return name if step == unit else f"{step // unit} {name}s"


def _down(time: datetime, step: timedelta) -> datetime:
    return time - (time - EPOCH) % step


def _up(time: datetime, step: timedelta) -> datetime:
    return _down(time - timedelta.resolution, step) + step


def _time_marks(begin: datetime, end: datetime, most: int) -> tuple[Mark, ...]:
    step = next((s for s in _STEPS if end - _up(begin, s) < most * s), _STEPS[-1])
    marks: list[Mark] = []
    at = _up(begin, step)
    while at < end:
        day = at.astimezone(UTC)
        marks.append(Mark(100 * ((at - begin) / (end - begin)), f"{day:%-d %b}" if not day.hour else f"{day:%H:%M}"))
        at += step
    return tuple(marks)

"""Where the lines, columns, spots and labels of the training report's charts stand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lockstep.report.charts import HEIGHT, Chart, Column, Layer, Mark, count_marks
from lockstep.report.numbers import percent, place, whole
from lockstep.training.evaluation.document import Calibration, CalibrationBin, Curve, EntityPrecision

SQUARE = 260
DAY_LABELS = 8
# Of the calibration plot, in powers of 3 of the odds, a little past the outermost edges of bins.
_LEAST, _MOST = -9.0, 6.0
_Z = 1.96


@dataclass(frozen=True)
class Spot:
    """A point of a plot, and from where to where it could as well stand.

    Attributes:
        x: in percent from the left.
        y: in pixels from the top.
        top: of its interval.
        bottom: of its interval.
        says: what it stands for, in words.
    """

    x: float
    y: float
    top: float
    bottom: float
    says: str


@dataclass(frozen=True)
class Plot:
    """Spots and the axes."""

    spots: tuple[Spot, ...]
    x_marks: tuple[Mark, ...]
    y_marks: tuple[Mark, ...]


def unit_square() -> Plot:
    """Return the axes of a curve: both from 0 to 1."""
    at = (0, 0.25, 0.5, 0.75, 1)
    return Plot(
        spots=(),
        x_marks=tuple(Mark(100 * share, f"{share:g}") for share in at),
        y_marks=tuple(Mark(SQUARE * (1 - share), f"{share:g}") for share in at),
    )


def polyline(curve: Curve) -> str:
    """Return a curve's points for a drawing that is 100 wide and 100 high, downwards."""
    return " ".join(f"{place(100 * x)},{place(100 * (1 - y))}" for x, y in curve)


def daily_chart(daily: EntityPrecision, entities: str) -> Chart:
    """Return by day the positive entities found, and above them those that were among the `top` of a perfect ranking only.

    Args:
        daily: at least one day.
        entities: what they are called.
    """
    reachable = [min(day.positives, daily.top) for day in daily.days]
    most, each = max(1, *reachable), 100 / len(daily.days)
    every = math.ceil(len(daily.days) / DAY_LABELS)
    return Chart(
        columns=tuple(
            Column(
                x=n * each,
                width=each,
                layers=_layers((("found", day.found), ("missed", could - day.found)), most),
                says=f"{day.day:%-d %b %Y}: {whole(day.found)} of {whole(day.positives)} positive {entities} found, "
                f"among {whole(day.entities)}",
            )
            for n, (day, could) in enumerate(zip(daily.days, reachable, strict=True))
        ),
        outline=(),
        x_marks=tuple(
            Mark((n + 0.5) * each, f"{day.day:%-d %b}") for n, day in enumerate(daily.days) if n % every == 0
        ),
        y_marks=count_marks(most),
    )


def _layers(parts: Sequence[tuple[str, int]], most: int) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    ground = float(HEIGHT)
    for kind, count in parts:
        height = HEIGHT * count / most
        ground -= height
        if count:
            layers.append(Layer(kind, ground, height))
    return tuple(layers)


def calibration_plot(calibration: Calibration) -> Plot:
    """Return what happened over what the scores said, a spot a bin; both axes are log-odds, as the bins are."""
    marks = [Mark(_odds_place(share), percent(share)) for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)]
    return Plot(
        spots=tuple(_spot(one) for one in calibration.bins),
        x_marks=tuple(Mark(100 * mark.at, mark.label) for mark in marks),
        y_marks=tuple(Mark(SQUARE * (1 - mark.at), mark.label) for mark in marks),
    )


def _spot(one: CalibrationBin) -> Spot:
    low, high = wilson(one.positives, one.rows)
    return Spot(
        x=100 * _odds_place(one.mean_score),
        y=SQUARE * (1 - _odds_place(one.share)),
        top=SQUARE * (1 - _odds_place(high)),
        bottom=SQUARE * (1 - _odds_place(low)),
        says=f"scores from {one.low:.2g} to {one.high:.2g}: {one.mean_score:.2g} on average, and "
        f"{whole(one.positives)} of {whole(one.rows)} are positive ({one.share:.2g})",
    )


def _odds_place(share: float) -> float:
    """Return where a share stands on an axis of log-odds, from 0 to 1; what lies beyond an end stands at it."""
    if not 0 < share < 1:
        return float(share >= 1)
    return min(1.0, max(0.0, (math.log(share / (1 - share), 3) - _LEAST) / (_MOST - _LEAST)))


def wilson(positives: int, rows: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, *JASA* 22, 1927), which holds where there is no positive at all."""
    share, scale = positives / rows, 1 + _Z**2 / rows
    middle = (share + _Z**2 / (2 * rows)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / rows + (_Z / (2 * rows)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)

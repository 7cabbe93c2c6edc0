"""Sums over sliding windows: the measures, their ratios, and the view that is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite
from typing import Any

from lockstep.clock import MICROSECOND
from lockstep.errors import UseCaseError
from lockstep.views.declare import DAY, DataType, StoredView


@dataclass(frozen=True)
class Measure:
    """An integer that is added up over the rows of a window.

    Attributes:
        name: of the measure.
        column: the integer column that is added up; None counts the rows.
        squared: whether the squares of its values are added up instead.
    """

    name: str
    column: str | None = None
    squared: bool = False


def count(name: str) -> Measure:
    """Count the rows of each window."""
    return Measure(name)


def total(column: str, name: str | None = None) -> Measure:
    """Add up an integer column over each window; computing the view refuses a sum of more than 64 bits (beyond 9.2e18)."""
    return Measure(name or column, column)


def total_of_squares(column: str, name: str | None = None) -> Measure:
    """Add up the squares of an integer column over each window: with the sum and the count they give the deviation.

    Computing the view refuses a square, or a sum of them, of more than 64 bits: from 3,037,000,500 on a value has such a one.
    """
    return Measure(name or f"{column}_squared", column, squared=True)


@dataclass(frozen=True)
class Ratio:
    """One float64 quotient of two measures of the same window; `empty` where the denominator is 0."""

    name: str
    numerator: str
    denominator: str
    empty: float = 0.0


def ratio(name: str, numerator: str, denominator: str, *, empty: float = 0.0) -> Ratio:
    """Divide one measure by another, once, at the end."""
    return Ratio(name, numerator, denominator, empty)


@dataclass(frozen=True, kw_only=True)
class WindowedView(StoredView):
    """Sums over the half-open windows `[T - delay - window, T - delay)` of a key's rows, at every tick T.

    Attributes:
        measures: the integers that are summed.
        ratios: the quotients made of them.
        windows: their lengths, whole ticks each; kept from the shortest to the longest.
        delay: how far the windows lie in the past.

    Raises:
        UseCaseError: the declaration contradicts itself.
    """

    kind = "windowed"
    measures: Sequence[Measure]
    windows: Sequence[timedelta]
    ratios: Sequence[Ratio] = ()
    delay: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        """Keep tuples of what was given, and refuse what contradicts itself."""
        for name, kept in (("measures", self.measures), ("windows", sorted(self.windows)), ("ratios", self.ratios)):
            object.__setattr__(self, name, tuple(kept))
        super().__post_init__()
        if not self.windows or not self.measures:
            raise UseCaseError(f"view {self.name} needs at least one window and one measure")
        for window in self.windows:
            if window <= timedelta(0) or window % self.every:
                raise UseCaseError(f"view {self.name}: window {window} is not a whole number of ticks of {self.every}")
        known = {m.name for m in self.measures}
        for quotient in self.ratios:
            if not isfinite(quotient.empty):
                raise UseCaseError(
                    f"view {self.name}: ratio {quotient.name} is {quotient.empty} where it is empty",
                    hint="name a number; a value that does not equal itself cannot be compared",
                )
            for part in (quotient.numerator, quotient.denominator):
                if part not in known:
                    raise UseCaseError(
                        f"view {self.name}: ratio {quotient.name} divides {part!r}, which is no measure of it"
                    )
        if len(self.features) != (len(self.measures) + len(self.ratios)) * len(self.windows):
            raise UseCaseError(f"view {self.name} declares one feature name twice")

    def column(self, name: str, window: timedelta) -> str:
        """Return the feature's name: that of a measure or ratio and the window, such as `nb_tx_7d`."""
        unit, size = ("d", DAY) if window % DAY == timedelta(0) else ("h", timedelta(hours=1))
        return f"{name}_{window // size}{unit}"

    @property
    def features(self) -> dict[str, DataType]:
        """The stored features in order, with their types: measures, then ratios, by window."""
        integers: dict[str, DataType] = {self.column(m.name, w): "int64" for m in self.measures for w in self.windows}
        floats: dict[str, DataType] = {self.column(r.name, w): "float64" for r in self.ratios for w in self.windows}
        return integers | floats

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The columns that measures add up."""
        return tuple(dict.fromkeys(m.column for m in self.measures if m.column is not None))

    @property
    def rules(self) -> dict[str, Any]:
        """What is summed, divided, over which windows, and how long ago."""
        return {
            "measures": [[m.name, m.column, *(["squared"] if m.squared else [])] for m in self.measures],
            "ratios": [[r.name, r.numerator, r.denominator, r.empty] for r in self.ratios],
            "windows": [w // MICROSECOND for w in self.windows],
            "delay": self.delay // MICROSECOND,
        }

    @property
    def least_ttl(self) -> timedelta:
        """A day's heartbeat, a tick and both lags."""
        return DAY + self.every + self.compute_lag + self.visible_lag


windowed_view = WindowedView
"""What definitions call it."""

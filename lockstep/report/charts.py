"""Of what a chart is made, and where it stands.

Horizontal places are percentages and vertical ones pixels, so that a chart fills any width and its words keep their size.
"""

from dataclasses import dataclass

HEIGHT = 150


@dataclass(frozen=True)
class Mark:
    """A label and where on its axis it stands."""

    at: float
    label: str


@dataclass(frozen=True)
class Layer:
    """A part of a column, by its kind: the class that the style draws it by."""

    kind: str
    top: float
    height: float


@dataclass(frozen=True)
class Column:
    """A column of a chart.

    Attributes:
        x: of its left edge.
        width: of its share of the axis, the gap to the next one included.
        layers: from the bottom.
        says: what it stands for, in words.
    """

    x: float
    width: float
    layers: tuple[Layer, ...]
    says: str


@dataclass(frozen=True)
class Line:
    """A straight piece of an outline."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Chart:
    """Columns, the outline drawn over them, and the axes."""

    columns: tuple[Column, ...]
    outline: tuple[Line, ...]
    x_marks: tuple[Mark, ...]
    y_marks: tuple[Mark, ...]


def count_marks(top: int) -> tuple[Mark, ...]:
    """Return 0 and up to four round numbers above it."""
    power = 10 ** (len(str(top)) - 1)
    step = max(1, next(s for s in (power // 5, power // 2, power, 2 * power, 5 * power) if s and top // s <= 4))
    return tuple(Mark(HEIGHT * (1 - rows / top), f"{rows:,}") for rows in range(0, top + 1, step))

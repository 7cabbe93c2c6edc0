"""How parts of a definition are told to a person."""

from collections.abc import Iterable, Sequence
from typing import Any

from lockstep.contract import Column

_UNITS = ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"))


def duration(micros: int) -> str:
    """Return a duration in the largest unit that it is whole in: `36 h`, `2 d`."""
    for size, unit in _UNITS:
        if micros and micros % size == 0:
            return f"{micros // size} {unit}"
    return "0" if not micros else f"{number(micros / 1_000_000)} s"


def number(value: float) -> str:
    """Return a number by all its digits, so that two that differ are told apart: `0.1`, `1234567`."""
    return repr(float(value)).removesuffix(".0")


def ttl(micros: int) -> str:
    """Return how long a row answers."""
    return duration(micros) if micros else "for ever"


def freshness(micros: int, *, hard: bool) -> str:
    """Return an objective with its kind."""
    return f"{duration(micros)} {'hard' if hard else 'soft'}"


def windows(micros: Sequence[int]) -> str:
    """Return windows with their unit once, if it is one: `1, 7, 30 d`."""
    told = [duration(length) for length in micros]
    units = {text.partition(" ")[2] for text in told}
    if len(units) == 1:
        return f"{', '.join(text.partition(' ')[0] for text in told)} {units.pop()}"
    return ", ".join(told)


def columns(given: Iterable[Column]) -> str:
    """Return columns with their types."""
    return ", ".join(f"{column.name} {column.dtype}" for column in given)


def rule(name: str, value: Any) -> str:
    """Return one of the rules that decide a value."""
    if name == "windows":
        return windows(value)
    if name == "delay":
        return duration(value)
    if isinstance(value, list):
        return ", ".join(_part(part) for part in value)
    return str(value)


def _part(part: Any) -> str:
    if not isinstance(part, list | tuple):
        return str(part)
    name, *rest = (str(p) for p in part if p is not None)
    return f"{name}({', '.join(rest)})" if rest else name


def only(old: Sequence[str], new: Sequence[str]) -> tuple[str, str]:
    """Return what is in one of two lists alone; both lists whole, if that is nothing: their order differs."""
    gone, came = [text for text in old if text not in new], [text for text in new if text not in old]
    if not gone and not came:
        return ", ".join(old), ", ".join(new)
    return ", ".join(gone), ", ".join(came)


def listed(names: Iterable[str]) -> str:
    """Return names with commas, the first few of many."""
    every = list(names)
    shown = every[:4]
    return ", ".join(shown) + (f" and {len(every) - len(shown)} more" if len(every) > len(shown) else "")

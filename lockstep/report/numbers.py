"""How a page writes numbers, times and names."""

import math
import re
from datetime import UTC, datetime

from markupsafe import Markup

SPACE = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"


def whole(number: int) -> str:
    """Write a whole number: 12,000."""
    return f"{number:,}"


def decimal(number: float, places: int = 3) -> str:
    """Write a score, or how far two are apart: 0.021."""
    least = 10.0**-places
    return f"{number:.{places}f}" if number == 0 or number >= least / 2 else f"less than {least:.{places}f}"


def signed(number: float, places: int = 3, *, plus: str = "+") -> str:
    """Write how much more or less something is: +0.021; nothing has no sign. Of a loss, `plus` may be empty."""
    shown = f"{abs(number):.{places}f}"
    if float(shown) == 0:
        return shown
    return f"{plus if number > 0 else MINUS}{shown}"


def plain(number: float) -> str:
    """Write a number that a person chose: 0.5."""
    return f"{number:g}"


def percent(share: float) -> str:
    """Write a share; all and nothing are written only where they are meant."""
    if 0 < share < 0.0001:
        return f"under 0.01{SPACE}%"
    shown = min(100 * share, 99.9) if share < 1 else 100 * share
    text = f"{shown:.2f}" if shown < 1 else f"{shown:.1f}"
    return f"{text.rstrip('0').rstrip('.')}{SPACE}%"


def percent_above(bound: float) -> str:
    """Write an upper bound, rounded up: the sentence it stands in stays true."""
    return f"{math.ceil(round(bound * 10_000, 6)) / 100:.2f}{SPACE}%"


def moment(time: datetime) -> str:
    """Write a time: 24 Jun 2018 05:00 UTC."""
    return f"{time.astimezone(UTC):%-d %b %Y %H:%M} UTC"


def place(coordinate: float) -> str:
    """Write where something stands, in percent or pixels."""
    return f"{coordinate:.2f}".rstrip("0").rstrip(".")


def breakable(name: str) -> Markup:
    """Write a name so that a narrow screen breaks it after `_`, `:`, `-` or `/`, and not inside a word."""
    return Markup("<wbr/>").join(re.findall(r"[^_:/-]*[_:/-]+|[^_:/-]+", name))

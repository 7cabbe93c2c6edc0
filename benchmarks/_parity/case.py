"""How much is verified, and where all of it is."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from lockstep.clock import parse_time
from lockstep.settings import Settings
from lockstep.views import StoredView

START = parse_time("2018-06-01T00:00:00Z")
USE_CASE = "benchmarks._parity"


@dataclass(frozen=True)
class Case:
    """How much is verified.

    Attributes:
        rows: to sample; twice as many were served.
        hours: of history.
        cards: how many cards.
        shops: how many shops.
        wrong: the share of rows that were answered with the rows of another card.
    """

    rows: int
    hours: int
    cards: int
    shops: int
    wrong: float = 0.0

    @property
    def until(self) -> datetime:
        """When it ends."""
        return START + timedelta(hours=self.hours)

    def keys(self, view: StoredView) -> int:
        """How many keys a view has."""
        return {"card": self.cards, "shop": self.shops}[view.entity.name]


FULL = Case(rows=100_000, hours=48, cards=50_000, shops=5_000)
SMALL = Case(rows=2_000, hours=4, cards=1_000, shops=200)
WRONG = 0.05


def cases(*, quick: bool) -> dict[str, Case]:
    """Return the cases by name."""
    case = SMALL if quick else FULL
    return {"all equal": case, f"{WRONG:.0%} of another card": replace(case, wrong=WRONG)}


def settings_of(home: Path) -> Settings:
    """Return where everything is."""
    return Settings(home=home, use_case=USE_CASE, clock_file=home / "clock").resolved()


def model_folder(home: Path) -> Path:
    """Return where the model is."""
    return home / "model"

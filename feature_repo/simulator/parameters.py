"""What a simulated world is made from: two worlds with equal parameters are equal, byte for byte."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from feature_repo.simulator.moments import to_microseconds


@dataclass(frozen=True)
class SimulatorParameters:
    """Size, seed and label timing of a world; the defaults are the size of the published data set.

    Attributes:
        customers: Cards, numbered from 0.
        terminals: Points of sale, numbered from 0.
        days: Days of payments; day 0 begins at `start`.
        start: The first instant of day 0, with a time zone.
        radius: A customer pays only at terminals nearer than this, on the 100 x 100 map.
        seed: Every random number follows from it.
        compromised_terminals_per_day: Mean number; None keeps the published share, 2 in 10,000. The fractional part
            is drawn: 0.25 means one terminal on a quarter of the days.
        compromised_customers_per_day: Mean number; None keeps the published share, 3 in 5,000.
        label_delay: How long after a payment its label is known.
        late_label_share: The share of labels that take up to two days longer than `label_delay`.

    Raises:
        ValueError: a size, rate, share or duration is out of range, or `start` has no time zone.
    """

    customers: int = 5_000
    terminals: int = 10_000
    days: int = 183
    start: datetime = datetime(2018, 4, 1, tzinfo=UTC)
    radius: float = 5.0
    seed: int = 0
    compromised_terminals_per_day: float | None = None
    compromised_customers_per_day: float | None = None
    label_delay: timedelta = timedelta(days=7)
    late_label_share: float = 0.01

    def __post_init__(self) -> None:
        to_microseconds(self.start, "start")
        for name in ("customers", "terminals", "days"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("radius", self.radius > 0, "positive")
        self._require("seed", self.seed >= 0, "0 or more")
        terminals, customers = self.terminal_compromises_per_day, self.customer_compromises_per_day
        self._require("compromised_terminals_per_day", 0 <= terminals <= self.terminals, "between 0 and terminals")
        self._require("compromised_customers_per_day", 0 <= customers <= self.customers, "between 0 and customers")
        self._require("label_delay", self.label_delay >= timedelta(0), "0 or longer")
        self._require("late_label_share", 0 <= self.late_label_share <= 1, "between 0 and 1")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"{name}={getattr(self, name)!r} must be {rule}.")

    # The defaults are worked out on reading: stored, they would go stale in dataclasses.replace(p, terminals=...).

    @property
    def terminal_compromises_per_day(self) -> float:
        """Mean number of terminals compromised on a day, the default filled in."""
        given = self.compromised_terminals_per_day
        return 2 * self.terminals / 10_000 if given is None else given

    @property
    def customer_compromises_per_day(self) -> float:
        """Mean number of customers compromised on a day, the default filled in."""
        given = self.compromised_customers_per_day
        return 3 * self.customers / 5_000 if given is None else given

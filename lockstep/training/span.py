"""The days a model is fitted and judged on."""

from dataclasses import dataclass
from datetime import datetime

from lockstep.clock import EPOCH
from lockstep.views.declare import DAY
from lockstep.views.use_case import ModelRecipe


@dataclass(frozen=True)
class Span:
    """Event times: train `[start, train_end)`, a gap of one label delay, test `[test_start, end)`."""

    start: datetime
    train_end: datetime
    test_start: datetime
    end: datetime

    @classmethod
    def of(cls, recipe: ModelRecipe, known_at: datetime) -> "Span":
        """Return the last whole days whose labels are known, and the days before them."""
        end = known_at - recipe.gap
        end -= (end - EPOCH) % DAY
        test_start = end - recipe.test
        train_end = test_start - recipe.gap
        return cls(start=train_end - recipe.train, train_end=train_end, test_start=test_start, end=end)

"""An alarm: the name of a leak, where it is, and what gave it away."""

from dataclasses import dataclass
from typing import Literal

AlarmName = Literal[
    "label_without_delay",
    "future_window",
    "current_row",
    "whole_history_rate",
    "moved_time",
    "not_as_declared",
    "too_good",
    "one_feature",
    "not_repeatable",
    "shuffled_labels",
]


@dataclass(frozen=True)
class Alarm:
    """One reason not to register a model.

    Attributes:
        name: the kind of leak:
            `label_without_delay`: labels that nobody could know yet count;
            `future_window`: rows count that come after the time asked for;
            `current_row`: the row that asks, or its own label, counts among those before it;
            `whole_history_rate`: all rows of a key count, whatever their time;
            `moved_time`: rows ask at another time than that of an event of their keys, as when their label was known;
            `not_as_declared`: a view's table says what the view does not declare, and what no leak known here explains;
            `too_good`: the model is better than an honest one can be;
            `one_feature`: one feature alone tells the label;
            `not_repeatable`: read again at the same cut, the training set is another;
            `shuffled_labels`: the estimator ranks although its labels mean nothing.
        subject: where: a feature as `view:feature`, a column of the spine as `column (spine)`, a metric.
        evidence: a sentence with the counts and an example.
    """

    name: AlarmName
    subject: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.name}: {self.subject}: {self.evidence}"

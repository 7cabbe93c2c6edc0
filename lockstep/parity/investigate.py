"""Compare served rows, and look up whose rows were read where they are not those of the key that was asked for."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockstep.parity.compare import Divergence, What, compare
from lockstep.parity.elsewhere import Elsewhere, rows_elsewhere
from lockstep.parity.facts import Facts
from lockstep.parity.sample import ServedView
from lockstep.settings import Settings


@dataclass(frozen=True)
class Case:
    """Many served rows, what is known of them, and how they differ.

    Attributes:
        facts: what is known.
        divergences: the differences of each row that has any, by its number.
        elsewhere: by view and row's number, which other keys have the row that was read.
    """

    facts: Facts
    divergences: Mapping[int, Sequence[Divergence]]
    elsewhere: Mapping[str, Mapping[int, Elsewhere]]


def investigate(settings: Settings, facts: Facts) -> Case:
    """Compare served rows, and look up what explaining their differences takes beside the facts."""
    divergences = compare(facts)
    foreign: defaultdict[str, dict[int, ServedView]] = defaultdict(dict)
    for n, of_row in divergences.items():
        for divergence in of_row:
            if divergence.what in {What.NEVER_HELD, What.VALUES}:
                foreign[divergence.view][n] = facts.rows[n].views[divergence.view]
    found = {view: rows_elsewhere(settings, facts.looked[view], read) for view, read in foreign.items()}
    return Case(facts, divergences, found)

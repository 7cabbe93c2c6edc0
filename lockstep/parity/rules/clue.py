"""What a rule looks at: one difference, its row, and what is known of that row and of the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lockstep.contract import View
from lockstep.parity.cause import Cause
from lockstep.parity.compare import Divergence
from lockstep.parity.expect import Stored, Version
from lockstep.parity.facts import Facts
from lockstep.parity.investigate import Case
from lockstep.parity.patterns import Patterns
from lockstep.parity.sample import ServedRow, ServedView

Named = tuple[Cause, str]
"""A cause and its evidence."""


@dataclass(frozen=True)
class Clue:
    """One difference, and all that a rule may look at.

    Attributes:
        case: the rows and what is known of them.
        patterns: what the rows of the sample have in common.
        divergence: the difference.
        named: the causes of the row's differences that are named already.
    """

    case: Case
    patterns: Patterns
    divergence: Divergence
    named: Mapping[Divergence, Named]

    @property
    def facts(self) -> Facts:
        """What is known of all rows."""
        return self.case.facts

    @property
    def row(self) -> ServedRow:
        """The served row."""
        return self.facts.rows[self.divergence.row]

    @property
    def view(self) -> View:
        """The stored view that the difference lies in."""
        return self.facts.contract.view(self.divergence.view)

    @property
    def stored(self) -> Stored:
        """What the lake says of the row and this view."""
        return self.facts.looked[self.divergence.view].rows[self.divergence.row]

    @property
    def read(self) -> ServedView:
        """What was read of this view."""
        return self.row.views[self.divergence.view]

    @property
    def column(self) -> tuple[str, str, str]:
        """The (process, view, column)."""
        return self.row.process, self.divergence.view, self.divergence.feature or ""

    @property
    def newest(self) -> Version | None:
        """The key's newest row in the last snapshot that the row may have been read from."""
        return self.stored.newest[-1]

    @property
    def behind(self) -> Mapping[str, frozenset[str]]:
        """The stored views that a feature comes from, with the columns: its own, or those that its on-demand view reads."""
        view, feature = self.divergence.view, self.divergence.feature
        on_demand = next((o for o in self.facts.contract.on_demand if o.name == view), None)
        if on_demand is None:
            return {view: frozenset({feature or ""})}
        sources = dict.fromkeys(source for source, _ in on_demand.reads)
        return {source: frozenset(c for of, c in on_demand.reads if of == source) for source in sources}


Rule = Callable[[Clue], Named | None]
"""Says what made a difference, or None where it does not know."""


def told_version(version: Version | None) -> str:
    """Say which row it is."""
    return f"(event, created) = ({version.event_us}, {version.created_us})" if version else "no row"

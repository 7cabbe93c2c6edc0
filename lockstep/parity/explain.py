"""Name the cause of every difference in a sample, each by a rule that says what it was read from.

Of each way in which a difference is seen, the rules (`rules/`) are asked in order, and the first that answers names the cause.
A rule looks at the row, and at what rows of the same process have in common (`patterns.py`). What no rule knows is *unexplained*,
or, where single rows hold what no row ever written held, *corruption*.
"""

from collections.abc import Sequence
from typing import Any

from lockstep.parity.compare import Difference, Divergence, What
from lockstep.parity.expect import Version
from lockstep.parity.investigate import Case
from lockstep.parity.patterns import Patterns
from lockstep.parity.rules import RULES, Clue, Named


def explain(case: Case, names: Sequence[str] | None = None) -> dict[str, list[Difference]]:
    """Return the differences of each row of a sample, with their causes; of an equal row, none.

    Args:
        case: of at least these rows.
        names: the rows of the sample; None: all. The others are not looked at.
    """
    facts = case.facts
    numbers = list(range(len(facts.rows))) if names is None else [facts.positions[name] for name in names]
    patterns = Patterns(case, numbers)
    return {facts.rows[n].name: _differences(case, patterns, n) for n in numbers}


def _differences(case: Case, patterns: Patterns, n: int) -> list[Difference]:
    divergences, name = case.divergences.get(n, ()), case.facts.rows[n].name
    named: dict[Divergence, Named] = {}
    # What training says of a row is explained by what is known of how it was read and folded.
    for divergence in sorted(divergences, key=lambda d: d.what is What.TRAINING):
        clue = Clue(case, patterns, divergence, named)
        named[divergence] = next(found for rule in RULES[divergence.what] if (found := rule(clue)) is not None)
    return [
        Difference(name, d.what.kind, d.view, d.feature, _plain(d.served), _plain(d.expected), *named[d])
        for d in divergences
    ]


def _plain(value: Any) -> Any:
    """Return a value as a report has it."""
    return [value.event_us, value.created_us] if isinstance(value, Version) else value

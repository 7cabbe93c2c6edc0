"""What to do about what differs: for each cause a sentence, and the command that mends it where one does."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from lockstep.parity.cause import Cause
from lockstep.parity.report import ParityReport


@dataclass(frozen=True)
class Remedy:
    """What to do about one cause.

    Attributes:
        cause: of what differs.
        says: what is to be done.
        command: which does it, or shows what is to be done; "" where none does.
    """

    cause: str
    says: str
    command: str = ""


_NOTHING = "Nothing: training is not to contain it."
_ADVICE: Mapping[Cause, tuple[str, str]] = {
    Cause.EARLY: (_NOTHING, ""),
    Cause.LATE: ("Nothing: it is inside the freshness objective. Shorter ticks, or earlier runs, make it rarer.", ""),
    Cause.ERASED: (_NOTHING, ""),
    Cause.MATERIALIZATION_GAP: (
        "Bring online what is new, and see which run should have done so.",
        "lockstep materialize {views}",
    ),
    Cause.UNVOUCHED: ("Write all rows again: the store may have lost some.", "lockstep repair {views}"),
    Cause.IN_FLIGHT: ("Finish what a run began to write and did not end.", "lockstep materialize {views}"),
    Cause.STALE_REWRITE: ("Write the newest rows over the older ones.", "lockstep repair {views}"),
    Cause.MISSING: ("Write the rows that the store does not have.", "lockstep repair {views}"),
    Cause.CORRUPTION: (
        "Write the right values over what nobody wrote, and find out who else writes there.",
        "lockstep repair {views}",
    ),
    Cause.TTL: (
        "Serve by the ttl that the model was trained with: the process that served goes by another.",
        "lockstep plan",
    ),
    Cause.SCHEMA_DRIFT: (
        "Put the definition back, or train again: the view is not what the model was trained on.",
        "lockstep plan",
    ),
    Cause.TRANSFORM: (
        "Serve the on-demand function that the model was trained with; a changed one needs another name and a training.",
        "lockstep plan",
    ),
    Cause.TYPE: (
        "Mend the conversion on the way to the model; one that is meant needs a tolerance in the contract, and a training.",
        "",
    ),
    Cause.WRONG_ROW: (
        "Mend what serves: it reads another key, view or column. This shows that the store itself is right.",
        "lockstep doctor {views}",
    ),
    Cause.CLOCK_SKEW: (
        "Set the clock of the process that served; each row's name begins with that of its process.",
        "",
    ),
    Cause.VERSION_MIX: (
        "Serve one version behind this address, and replay its requests again.",
        "lockstep run shadow-replay -p model={version}",
    ),
    Cause.UNEXPLAINED: (
        "No rule knows it. See whether the store is what the lake says, and look at the evidence.",
        "lockstep doctor {views}",
    ),
}


def remedy_of(cause: Cause, views: str, version: int) -> Remedy:
    """Return what to do about a cause in stored views, named with blanks between; without views no command is about any."""
    says, command = _ADVICE[cause]
    needs_views = "{views}" in command and not views
    return Remedy(cause.value, says, "" if needs_views else command.format(views=views, version=version))


def remedies(report: ParityReport) -> list[Remedy]:
    """Return what to do about each cause that excuses nothing, the most frequent first.

    A command names the stored views in which the cause was found; where only on-demand views were, all that the model reads.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    for rate in report.features:
        for cause in rate.causes:
            found[cause].add(rate.view)
    for difference in report.differences:
        found[difference.cause].add(difference.view)
    stored = set(report.present)
    causes = sorted(report.causes, key=lambda cause: (-report.causes[cause], cause))
    return [
        remedy_of(cause, " ".join(sorted(found[cause] & stored or stored)), report.model.version)
        for cause in (Cause(cause) for cause in causes if cause in _ADVICE)
        if not cause.excused
    ]

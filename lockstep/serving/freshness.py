"""The freshness half of the policy, which only serving can know: which model answers, and what is flagged.

A view's age is that of its watermark, the last tick that is online: a quiet key's row is rightly old, a stopped pipeline is
not. A view past a soft objective is served and flagged. Past a hard one the fallback model answers, which does without it; where
there is none, nobody does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput
from lockstep.online.epoch import Epochs
from lockstep.serving.refusal import Reason, Unavailable

LATE = "late"
UNVOUCHED = "unvouched"
_HINT = "`lockstep views` shows how old each view is; compute-and-materialize brings it online"


@dataclass(frozen=True)
class Freshness:
    """How the views of a contract stand at one moment.

    Attributes:
        ages_us: how long before that moment each view's watermark was; None where the store vouches for none.
        unmet: the views that do not keep their objective, each with *late*, or *unvouched*: nothing of it was brought online,
            what the store says of it is no longer sure, or its watermark lies in the future, so a clock is wrong.
    """

    ages_us: Mapping[str, int | None]
    unmet: Mapping[str, str]

    @property
    def flags(self) -> list[str]:
        """What each row is flagged with."""
        return [f"{view}:{what}" for view, what in self.unmet.items()]


def freshness_of(contract: FeatureContract, epochs: Epochs, now_us: int, clocks_apart_us: int) -> Freshness:
    """Judge the views of a contract by a reading of the epoch hash.

    Args:
        contract: its views, with their objectives.
        epochs: the reading taken before the rows.
        now_us: when that was, in microseconds.
        clocks_apart_us: how far a watermark may be ahead of our clock.
    """
    ages: dict[str, int | None] = {}
    unmet: dict[str, str] = {}
    for view in contract.views:
        epoch = epochs.views.get(view.name)
        known = epoch.committed if epoch and epochs.incarnation else None
        ages[view.name] = age = now_us - known.watermark_us if known else None
        if age is None or age < -clocks_apart_us:
            unmet[view.name] = UNVOUCHED
        elif age > view.freshness_us:
            unmet[view.name] = LATE
    return Freshness(ages, unmet)


def require_filled(contract: FeatureContract, epochs: Epochs) -> None:
    """Refuse a store that has nothing of any view, where the contract reads one: to it everybody is unknown.

    Raises:
        Unavailable: it has not.
    """
    # Of a cluster of which one primary was flushed, what the others have is told as being written.
    if contract.views and not any(epoch.committed or epoch.writing for epoch in epochs.views.values()):
        raise Unavailable(
            Reason.STORE_EMPTY,
            "nothing was brought online in this store: it was lost, or no view was materialized yet",
            hint="run compute-and-materialize; it writes what a lost store lacks",
        )


def answering_contract(
    contract: FeatureContract, unmet: Mapping[str, str], *, forced: bool = False
) -> FeatureContract:
    """Return the contract of the model that answers: the main one, or its fallback.

    Args:
        contract: the main one.
        unmet: the views that do not keep their objective, each with what it is.
        forced: the fallback is asked for.

    Raises:
        BadInput: the fallback is asked for and there is none.
        Unavailable: neither may answer.
    """
    broken = {view.name for view in contract.views if view.freshness_hard and view.name in unmet}
    if not broken and not forced:
        return contract
    fallback = contract.fallback
    if fallback is None and forced:
        raise BadInput(f"{contract.feature_service} has no fallback model")
    if fallback is None:
        raise Unavailable(
            Reason.STALE_FEATURES,
            f"{_named(broken, unmet)}, a hard objective is broken, and there is no fallback model",
            hint=_HINT,
        )
    still = broken & {view.name for view in fallback.views}
    if still:
        raise Unavailable(
            Reason.STALE_FEATURES,
            f"{_named(still, unmet)}, a hard objective is broken, and the fallback model reads it, too",
            hint=_HINT,
        )
    return fallback


def _named(views: Iterable[str], unmet: Mapping[str, str]) -> str:
    return ", ".join(f"{view} is {unmet[view]}" for view in sorted(views))

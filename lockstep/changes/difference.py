"""What a change is, what it takes, and whom it touches: the vocabulary of `lockstep plan`."""

import enum
from dataclasses import dataclass
from functools import cached_property


class Consequence(enum.StrEnum):
    """What a change takes, from nothing to what may not be done; a whole takes the last of what its parts take.

    NONE: nothing, it has effect by itself.
    REGISTER: the definitions have to be applied to Feast's registry; a training is refused until then.
    RETRAIN: models in use go on as they are; what is new comes with the next training, and until then parity may differ.
    SWEEP: nothing reads it any more; its fields stay in the online store until they are swept.
    BACKFILL: ticks have to be computed, for the first time or again; live ones of a corrected view are refused until then.
    VERSION: it cannot be done under this name; the new version needs a name of its own.
    BREAKS: something that is in use would stop working.
    """

    NONE = "none"
    REGISTER = "register"
    RETRAIN = "retrain"
    SWEEP = "sweep"
    BACKFILL = "backfill"
    VERSION = "version"
    BREAKS = "breaks"

    @property
    def refused(self) -> bool:
        """Whether it may not be merged as it is."""
        return self in {Consequence.VERSION, Consequence.BREAKS}

    @property
    def rank(self) -> int:
        """Its place in the order above."""
        return list(Consequence).index(self)


@dataclass(frozen=True)
class Change:
    """One thing that differs.

    Attributes:
        what: the part of the subject.
        old: what it was, for a person; "" where there was none.
        new: what it is.
        consequence: what that takes.
        why: the reason, in a sentence without its full stop; "" where the consequence says it all.
    """

    what: str
    old: str
    new: str
    consequence: Consequence
    why: str = ""


@dataclass(frozen=True)
class Touched:
    """Who reads what changed.

    Attributes:
        tables: its tables in the lake.
        views: the stored views that are made of it.
        on_demand: the on-demand views that read it.
        services: the feature services that take it, directly or through an on-demand view.
        models: the models in use whose contract lists it.
    """

    tables: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    on_demand: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """One declared thing that changed.

    Attributes:
        kind: "stored view", "on-demand view", "service", "entity", "source", "model" or "project".
        name: what it is called.
        owner: who answers for it.
        changes: what differs.
        touched: who reads it.
        is_new: whether the old revision does not have it.
        is_gone: whether the new revision does not have it.
    """

    kind: str
    name: str
    owner: str
    changes: tuple[Change, ...]
    touched: Touched = Touched()
    is_new: bool = False
    is_gone: bool = False

    @property
    def consequence(self) -> Consequence:
        """The greatest of what its changes take."""
        return max((change.consequence for change in self.changes), key=lambda found: found.rank)

    def takes(self, consequence: Consequence) -> bool:
        """Tell whether one of its changes has this consequence."""
        return any(change.consequence is consequence for change in self.changes)

    @property
    def is_view(self) -> bool:
        """Whether it is a view that the new revision has, and more of it differs than what describes it."""
        described = {"owner", "description", "tags"}
        return self.kind.endswith("view") and not self.is_gone and {c.what for c in self.changes} - described != set()


@dataclass(frozen=True)
class Plan:
    """What a change of the definitions takes.

    Attributes:
        project: whose definitions.
        subjects: what changed, in the order in which things are declared.
    """

    project: str
    subjects: tuple[Subject, ...]

    @cached_property
    def refused(self) -> tuple[Subject, ...]:
        """What may not be merged as it is."""
        return tuple(subject for subject in self.subjects if subject.consequence.refused)

    @property
    def changed_views(self) -> tuple[str, ...]:
        """The views, stored and on demand, that the new revision has and whose values, keys or times may differ."""
        return tuple(subject.name for subject in self.subjects if subject.is_view)

    @property
    def needs_work(self) -> bool:
        """Whether something is left to do by hand after the merge, or before it."""
        return any(subject.consequence is not Consequence.NONE for subject in self.subjects)

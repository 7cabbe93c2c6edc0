"""A fault: what goes wrong on purpose, and the causes that a right diagnosis of it names.

To add one, write a module in `lockstep/skew/faults/` with a subclass of `Fault` and a function `variants(contract)` that returns
one instance for each parameter (and each view, if it is about one), and list the module in `lockstep/skew/catalog.py`. Override
the hooks that the fault is about; each of them is the identity here:

    asked         the entity keys, before the store is asked
    plan          what of the store is read
    stored        the bytes of one row in the store
    lags          how far behind a view's rows are in the store, as after a pipeline that runs late
    late          which of these rows are read in place of those of now
    read          what was read, before vectors are made of it
    functions     the on-demand functions
    vectors       the vectors, before they are scored
    posted        the vectors that the predictor gets, which are not those that are logged
    by_fallback   whether the fallback model gives the scores of a request, unnoticed
    clock         how far the serving node's clock is ahead, and with it the request time that it stamps
    honest        whether the store says how far behind they are, or claims to have all
    guarded       whether late views are noticed, or the main model answers all the same
    sent          the inputs that the caller sends
    afterwards    the lake, once everything was served
    definitions   the definitions, once everything was served

A hook is given plain data and gives plain data back; what is there stays as it is. Chance comes from `Moment.draw`, or from
`chance` where the same key must have the same fate each time; so a run is repeated by its seed. A fault is one value that never
changes: what it keeps from one request to the next is in `Moment.memory`.

State `causes` from the table of causes before looking at what the classifier says: that is what makes the score worth something.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lockstep.contract import FeatureContract, View
from lockstep.lake import Lake
from lockstep.online.reader import Reading, ReadPlan, ViewRows
from lockstep.serving.features import Function
from lockstep.views.use_case import UseCase

Entities = Mapping[str, Sequence[Any]]
StoredRow = Mapping[bytes, bytes]
Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """What a hook may go by beside what it is handed.

    Attributes:
        draw: chance, by the run's seed and the fault's name.
        previous: what was read for the request before this one; None for the first.
        entities: each join key's values, one a row, as the caller sent them.
        times_us: each row's request time, in microseconds.
        memory: what the fault has kept so far, one for each service.
    """

    draw: np.random.Generator
    previous: Reading | None = None
    entities: Entities = field(default_factory=dict[str, Sequence[Any]])
    times_us: Sequence[int] = ()
    memory: dict[Any, Any] = field(default_factory=dict[Any, Any])


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Nothing goes wrong: what all faults are held against.

    Attributes:
        name: of the fault, as the command takes it.
        says: what goes wrong, in a few words.
        causes: those of which a right diagnosis names one; none where there is nothing that parity can, or should, find.
        also: what it may name beside it, because the fault brings that about, too.
        unseen: why parity is not expected to find it; empty if it is.
        control: values hardly change; it is there to be found nevertheless, unless the contract states a tolerance.
        held_out: the classifier was written without it; the catalog says so of those in `lockstep/skew/held_out/`.
    """

    name: str
    says: str
    causes: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()
    unseen: str = ""
    control: bool = False
    held_out: bool = False
    lags: Mapping[str, timedelta] = field(default_factory=dict[str, timedelta])
    clock: timedelta = timedelta(0)
    guarded: bool = True
    honest: bool = True

    @property
    def halves(self) -> "tuple[Fault, ...]":
        """The faults it is made of: itself, unless it is a pair."""
        return (self,)

    @property
    def of_store(self) -> bool:
        """Whether it changes bytes in the store, which nobody else may read meanwhile."""
        return type(self).stored is not Fault.stored

    @property
    def of_lake(self) -> bool:
        """Whether it changes the lake once everything was served."""
        return type(self).afterwards is not Fault.afterwards

    @property
    def apart(self) -> bool:
        """Whether parity is asked with another lake, ledger or other definitions than of the clean service."""
        late = self.honest and bool(self.lags)
        return self.of_lake or late or type(self).definitions is not Fault.definitions

    def asked(self, entities: Entities) -> Entities:
        """Return the entity keys that the store is asked for."""
        return entities

    def plan(self, plan: ReadPlan) -> ReadPlan:
        """Return what is read."""
        return plan

    def stored(self, view: View, key: bytes, row: StoredRow) -> StoredRow:
        """Return the hash that the store holds of an entity, all its views' fields in it; see `online/layout.py`."""
        return row

    def late(self, view: str, now: ViewRows, then: ViewRows, entities: Entities) -> ViewRows:
        """Return what is read of a view that lags: its rows as they were then."""
        return then

    def read(self, reading: Reading, moment: Moment) -> Reading:
        """Return what was read."""
        return reading

    def functions(self, contract: FeatureContract, functions: Mapping[str, Function]) -> Mapping[str, Function]:
        """Return the on-demand functions of a contract, by the name of their view."""
        return functions

    def vectors(self, contract: FeatureContract, vectors: Vectors, moment: Moment) -> Vectors:
        """Return the vectors that are scored and logged, rows by features of the contract that answers."""
        return vectors

    def posted(self, contract: FeatureContract, vectors: Vectors) -> Vectors:
        """Return the vectors that the predictor gets in place of those that are logged."""
        return vectors

    def by_fallback(self, moment: Moment) -> bool:
        """Return whether a request is scored by the fallback model, and logged as if it were not."""
        return False

    def sent(self, contract: FeatureContract, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the inputs of one row as the caller sends them."""
        return inputs

    def afterwards(self, lake: Lake, contract: FeatureContract, since_us: int, until_us: int) -> None:
        """Change the lake, a copy of the fault's own, once `[since_us, until_us)` was served."""

    def definitions(self, use_case: UseCase) -> UseCase:
        """Return the definitions that parity is asked with."""
        return use_case


@dataclass(frozen=True, kw_only=True)
class Pair(Fault):
    """Two faults at once, the second on top of the first."""

    first: Fault
    second: Fault

    @classmethod
    def of(cls, first: Fault, second: Fault) -> "Pair":
        """Put two together; a right diagnosis names causes of both."""
        return cls(
            name=f"{first.name}+{second.name}",
            says=f"{first.says}; {second.says}",
            causes=first.causes | second.causes,
            also=first.also | second.also,
            lags={**first.lags, **second.lags},
            clock=first.clock + second.clock,
            guarded=first.guarded and second.guarded,
            honest=first.honest and second.honest,
            first=first,
            second=second,
        )

    @property
    def halves(self) -> tuple[Fault, ...]:
        """Both of them, or what they are made of."""
        return self.first.halves + self.second.halves

    @property
    def of_store(self) -> bool:
        """Whether one of them does."""
        return self.first.of_store or self.second.of_store

    @property
    def of_lake(self) -> bool:
        """Whether one of them does."""
        return self.first.of_lake or self.second.of_lake

    @property
    def apart(self) -> bool:
        """Whether it is so of one of them."""
        return self.first.apart or self.second.apart

    def asked(self, entities: Entities) -> Entities:
        """Ask for what both make of it."""
        return self.second.asked(self.first.asked(entities))

    def plan(self, plan: ReadPlan) -> ReadPlan:
        """Read what both make of it."""
        return self.second.plan(self.first.plan(plan))

    def stored(self, view: View, key: bytes, row: StoredRow) -> StoredRow:
        """Store what both make of it."""
        return self.second.stored(view, key, self.first.stored(view, key, row))

    def late(self, view: str, now: ViewRows, then: ViewRows, entities: Entities) -> ViewRows:
        """Read what the one makes of it by which the view lags."""
        return (self.second if view in self.second.lags else self.first).late(view, now, then, entities)

    def read(self, reading: Reading, moment: Moment) -> Reading:
        """Take for read what both make of it."""
        return self.second.read(self.first.read(reading, moment), moment)

    def functions(self, contract: FeatureContract, functions: Mapping[str, Function]) -> Mapping[str, Function]:
        """Compute by what both make of them."""
        return self.second.functions(contract, self.first.functions(contract, functions))

    def vectors(self, contract: FeatureContract, vectors: Vectors, moment: Moment) -> Vectors:
        """Score what both make of it."""
        return self.second.vectors(contract, self.first.vectors(contract, vectors, moment), moment)

    def posted(self, contract: FeatureContract, vectors: Vectors) -> Vectors:
        """Post what both make of it."""
        return self.second.posted(contract, self.first.posted(contract, vectors))

    def by_fallback(self, moment: Moment) -> bool:
        """Score as either wants."""
        return self.first.by_fallback(moment) or self.second.by_fallback(moment)

    def sent(self, contract: FeatureContract, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send what both make of it."""
        return self.second.sent(contract, self.first.sent(contract, inputs))

    def afterwards(self, lake: Lake, contract: FeatureContract, since_us: int, until_us: int) -> None:
        """Change the lake twice."""
        self.first.afterwards(lake, contract, since_us, until_us)
        self.second.afterwards(lake, contract, since_us, until_us)

    def definitions(self, use_case: UseCase) -> UseCase:
        """Ask with the definitions that both make of it."""
        return self.second.definitions(self.first.definitions(use_case))


def chance(*parts: object) -> float:
    """Return a number in [0, 1) that is always the same for the same parts."""
    told = "\0".join(part.hex() if isinstance(part, bytes) else str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(told.encode(), digest_size=8).digest()) / 2**64

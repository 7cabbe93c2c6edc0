"""One revision of a use case's definitions as plain data, which another process can hand over as JSON.

A revision is described by the library at hand, whatever release it was written for: only the use case's own package is read
from the revision.
"""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

from lockstep.changes import words
from lockstep.changes.code import code_hash
from lockstep.clock import EPOCH, MICROSECOND
from lockstep.contract import Column, FeatureContract, TrainingCut
from lockstep.errors import UseCaseError
from lockstep.hashing import digest, source_hash
from lockstep.training.contract import compile_contract
from lockstep.views.declare import DAY, Entity, FeatureService, NullPolicy, OnDemandView, Source, StoredView
from lockstep.views.latest import LatestView
from lockstep.views.use_case import ModelRecipe, Protocol, UseCase

NO_CUT = TrainingCut(tables=(), spine_hash="", known_at=EPOCH)
"""The cut of a contract that nothing was trained on."""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EntityFacts(_Facts):
    """An entity."""

    name: str
    join_key: Column
    owner: str
    description: str


class SourceFacts(_Facts):
    """A raw table."""

    table: str
    event_time: str
    known_at: str
    owner: str
    description: str


class StoredFacts(_Facts):
    """A stored view; times are whole microseconds.

    Attributes:
        repeats_us: how long at most until an unchanged value is written again; None is never.
        rules: what decides a value, by the kind of view: measures and windows, or columns.
    """

    name: str
    kind: str
    owner: str
    description: str
    tags: dict[str, str]
    table: str
    entity: str
    join_key: Column
    source: str
    event_time: str
    known_at: str
    every_us: int
    ttl_us: int
    compute_lag_us: int
    visible_lag_us: int
    freshness_us: int
    freshness_hard: bool
    repeats_us: int | None
    features: tuple[Column, ...]
    rules: dict[str, Any]
    definition_hash: str


class OnDemandFacts(_Facts):
    """An on-demand view."""

    name: str
    owner: str
    description: str
    tags: dict[str, str]
    function: str
    source_hash: str
    inputs: tuple[Column, ...]
    reads: tuple[tuple[str, str], ...]
    outputs: tuple[Column, ...]


class ServiceFacts(_Facts):
    """A feature service; `features` as (view, feature), in the model's order; `policy` by feature, in words."""

    name: str
    owner: str
    description: str
    features: tuple[tuple[str, str], ...]
    policy: dict[str, str] = {}


class ModelFacts(_Facts):
    """How the model is made.

    Attributes:
        recipe: what a training follows, each part by its name; code by a hash.
        thresholds: what the gate asks for.
    """

    name: str
    service: str
    recipe: dict[str, str]
    thresholds: dict[str, float]

    @property
    def services(self) -> frozenset[str]:
        """The services that a training takes: the model's own and its fallback's."""
        return frozenset({self.service, self.recipe.get("fallback", "")} - {""})


class Definitions(_Facts):
    """One revision of a use case.

    Attributes:
        contract: what a model that is trained now would be trained on, but for the cut.
        functions: of each on-demand function that was asked for, the hash of its source here; None where it is not there.
    """

    project: str
    entities: tuple[EntityFacts, ...] = ()
    sources: tuple[SourceFacts, ...] = ()
    views: tuple[StoredFacts, ...] = ()
    on_demand: tuple[OnDemandFacts, ...] = ()
    services: tuple[ServiceFacts, ...] = ()
    model: ModelFacts | None = None
    contract: FeatureContract | None = None
    functions: dict[str, str | None] = {}


def describe(use_case: UseCase, functions: Iterable[str] = ()) -> Definitions:
    """Return a use case as plain data.

    Args:
        use_case: the definitions, as this process imported them.
        functions: on-demand functions (`module:function`) to look for besides the declared ones, which another revision or a
            model names.

    Raises:
        UseCaseError: the definitions contradict themselves.
    """
    asked = {*functions, *(view.reference for view in use_case.on_demand)}
    return Definitions(
        project=use_case.project,
        entities=tuple(map(_entity, use_case.entities)),
        sources=tuple(map(_source, use_case.sources)),
        views=tuple(map(describe_view, use_case.views)),
        on_demand=tuple(map(_on_demand, use_case.on_demand)),
        services=tuple(map(_service, use_case.services)),
        model=_model(use_case.model),
        contract=compile_contract(use_case, use_case.model.service.name, NO_CUT),
        functions={reference: _hash_of(reference) for reference in sorted(asked)},
    )


def _entity(entity: Entity) -> EntityFacts:
    key = Column(name=entity.join_key, dtype=entity.dtype)
    return EntityFacts(name=entity.name, join_key=key, owner=entity.owner, description=entity.description)


def _source(source: Source) -> SourceFacts:
    return SourceFacts(
        table=source.table,
        event_time=source.event_time,
        known_at=source.known_at,
        owner=source.owner,
        description=source.description,
    )


def describe_view(view: StoredView) -> StoredFacts:
    """Return a stored view as plain data."""
    repeats = DAY
    if isinstance(view, LatestView):
        repeats = None if view.heartbeat is None else view.heartbeat * view.every
    return StoredFacts(
        name=view.name,
        kind=view.kind,
        owner=view.owner,
        description=view.description,
        tags=dict(view.tags),
        table=view.table,
        entity=view.entity.name,
        join_key=Column(name=view.entity.join_key, dtype=view.entity.dtype),
        source=view.source.table,
        event_time=view.source.event_time,
        known_at=view.source.known_at,
        every_us=view.every // MICROSECOND,
        ttl_us=view.ttl // MICROSECOND,
        compute_lag_us=view.compute_lag // MICROSECOND,
        visible_lag_us=view.visible_lag // MICROSECOND,
        freshness_us=view.freshness.objective // MICROSECOND,
        freshness_hard=view.freshness.hard,
        repeats_us=None if repeats is None else repeats // MICROSECOND,
        features=tuple(Column(name=name, dtype=dtype) for name, dtype in view.features.items()),
        rules=view.rules,
        definition_hash=view.definition_hash,
    )


def _on_demand(view: OnDemandView) -> OnDemandFacts:
    return OnDemandFacts(
        name=view.name,
        owner=view.owner,
        description=view.description,
        tags=dict(view.tags),
        function=view.reference,
        source_hash=view.source_hash,
        inputs=tuple(Column(name=name, dtype=dtype) for name, dtype in view.inputs.items()),
        reads=tuple((source.name, column) for source, column in view.reads),
        outputs=tuple(Column(name=name, dtype=dtype) for name, dtype in view.outputs.items()),
    )


def _service(service: FeatureService) -> ServiceFacts:
    return ServiceFacts(
        name=service.name,
        owner=service.owner,
        description=service.description,
        features=tuple((view.name, feature) for view, feature in service.features),
        policy={name: _policy(given) for name, given in sorted(service.policy.items())},
    )


def _policy(given: NullPolicy) -> str:
    return given.when_null if given.default is None else f"{given.when_null} {words.number(given.default)}"


def _model(recipe: ModelRecipe) -> ModelFacts:
    followed = {
        "spine": _short(digest([recipe.spine, {t: list(c) for t, c in recipe.spine_tables.items()}])),
        "requests": _short(digest([recipe.requests, {t: list(c) for t, c in recipe.requests_tables.items()}])),
        "label": f"{recipe.label}, known at {recipe.label_known_at}",
        "estimator": _short(digest([code_hash(recipe.estimator), list(recipe.trusted_types)])),
        "days": ", ".join(
            f"{what} {words.duration(length // MICROSECOND)}"
            for what, length in (("train", recipe.train), ("gap", recipe.gap), ("test", recipe.test))
        ),
        "protocol": _protocol(recipe.protocol),
        "ceilings": ", ".join(f"{name} {words.number(most)}" for name, most in vars(recipe.ceilings).items()),
        "fallback": recipe.fallback.name if recipe.fallback else "",
    }
    return ModelFacts(
        name=recipe.name, service=recipe.service.name, recipe=followed, thresholds=dict(vars(recipe.thresholds))
    )


def _protocol(protocol: Protocol) -> str:
    known = "known ones left out" if protocol.leave_known_out else "known ones kept"
    kinds = f", kinds by {protocol.group}" if protocol.group else ""
    return f"the first {protocol.top} {protocol.entity} a day, {known}{kinds}"


def _hash_of(reference: str) -> str | None:
    try:
        return source_hash(reference.partition(":")[0])
    except (UseCaseError, ModuleNotFoundError):
        return None


def _short(text: str) -> str:
    return text[:12]

"""Compare two revisions of the definitions: what changed, whom it touches, and what that takes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from lockstep.changes import readers, stored, words
from lockstep.changes.describe import Definitions, EntityFacts, OnDemandFacts, ServiceFacts, SourceFacts
from lockstep.changes.difference import Change, Consequence, Plan, Subject, Touched
from lockstep.contract import FeatureContract

_Facts = TypeVar("_Facts")
Models = Mapping[str, FeatureContract]


def compare(old: Definitions | None, new: Definitions, models: Models) -> Plan:
    """Return what differs between two revisions of one use case and what it takes.

    Args:
        old: the revision that is live; None if there is none yet, then everything is new.
        new: the one that is to be.
        models: the contracts of the models in use, by what to call the model. Nothing that they name may stop working.
    """
    before = old or Definitions(project=new.project)
    subjects = [
        *_project(before, new),
        *_entities(before, new),
        *_sources(before, new),
        *_stored(before, new, models),
        *_on_demand(before, new, models),
        *_services(before, new, models),
        *_model(before, new, models),
    ]
    return Plan(new.project, tuple(subjects))


def _project(old: Definitions, new: Definitions) -> Iterator[Subject]:
    if old.project != new.project:
        why = "tables, online keys and Feast's project are named by it: nothing of the old one is found any more"
        change = Change("name", old.project, new.project, Consequence.BREAKS, why)
        yield Subject("project", new.project, "", (change,))


def _entities(old: Definitions, new: Definitions) -> Iterator[Subject]:
    def changes(before: EntityFacts | None, after: EntityFacts | None) -> Iterator[Change]:
        if before and after:
            if before.join_key != after.join_key:
                was, is_now = words.columns([before.join_key]), words.columns([after.join_key])
                why = "what it takes is said at each of its views"
                yield Change("join key", was, is_now, Consequence.REGISTER, why)
            yield from stored.metadata(before, after)
        elif after:
            yield Change("entity", "", words.columns([after.join_key]), Consequence.REGISTER)
        elif before:
            yield Change("entity", words.columns([before.join_key]), "", Consequence.NONE, "nothing is deleted")

    for before, after in _pairs(old.entities, new.entities, lambda fact: fact.name):
        name, owner = _named(before, after, lambda fact: (fact.name, fact.owner))
        views = tuple(v.name for v in new.views if v.entity == name)
        yield from _subject("entity", name, owner, changes(before, after), before, after, Touched(views=views))


def _sources(old: Definitions, new: Definitions) -> Iterator[Subject]:
    def changes(before: SourceFacts | None, after: SourceFacts | None) -> Iterator[Change]:
        if before and after:
            for what in ("event_time", "known_at"):
                if getattr(before, what) != getattr(after, what):
                    told = (getattr(before, what), getattr(after, what))
                    why = "what it takes is said at each of its views"
                    yield Change(what.replace("_", " "), *told, Consequence.NONE, why)
            for change in stored.metadata(before, after):
                yield Change(change.what, change.old, change.new, Consequence.NONE)
        elif after:
            yield Change("source", "", f"table {after.table}", Consequence.NONE, "somebody else fills it")
        elif before:
            yield Change("source", f"table {before.table}", "", Consequence.NONE, "its rows stay")

    for before, after in _pairs(old.sources, new.sources, lambda fact: fact.table):
        name, owner = _named(before, after, lambda fact: (fact.table, fact.owner))
        touched = Touched(tables=(name,), views=tuple(v.name for v in new.views if v.source == name))
        yield from _subject("source", name, owner, changes(before, after), before, after, touched)


def _stored(old: Definitions, new: Definitions, models: Models) -> Iterator[Subject]:
    for before, after in _pairs(old.views, new.views, lambda fact: fact.name):
        name, owner = _named(before, after, lambda fact: (fact.name, fact.owner))
        reading = {m: c for m, c in models.items() if name in {view.name for view in c.views}}
        if before and after:
            changes = tuple(stored.stored_changes(before, after, reading))
        else:
            changes = (stored.new_view(after),) if after else (stored.gone_view(_given(before), reading),)
        by = _views_that_read(old, new, name)
        touched = Touched((name,), (), by, _services_that_take(old, new, {name, *by}), tuple(reading))
        yield from _subject("stored view", name, owner, changes, before, after, touched)


def _on_demand(old: Definitions, new: Definitions, models: Models) -> Iterator[Subject]:
    for before, after in _pairs(old.on_demand, new.on_demand, lambda fact: fact.name):
        name, owner = _named(before, after, lambda fact: (fact.name, fact.owner))
        trained = {m: c for m, c in models.items() if name in {view.name for view in c.on_demand}}
        if before and after:
            changes = tuple(readers.on_demand_changes(before, after, new.functions, trained))
        elif after:
            changes = (readers.new_on_demand(after),)
        else:
            changes = (readers.gone_on_demand(_given(before), new, trained),)
        touched = Touched(services=_services_that_take(old, new, {name}), models=tuple(trained))
        yield from _subject("on-demand view", name, owner, changes, before, after, touched)


def _services(old: Definitions, new: Definitions, models: Models) -> Iterator[Subject]:
    def changes(before: ServiceFacts | None, after: ServiceFacts | None, trained: Models) -> Iterator[Change]:
        if before and after:
            of_the_recipe = new.model is not None and after.name in new.model.services
            yield from readers.service_changes(before, after, trained, trained=of_the_recipe)
        elif after:
            yield readers.new_service(after)
        elif before:
            yield readers.gone_service(before, trained)

    for before, after in _pairs(old.services, new.services, lambda fact: fact.name):
        name, owner = _named(before, after, lambda fact: (fact.name, fact.owner))
        trained = _trained_on(models, name)
        touched = Touched(models=tuple(trained))
        yield from _subject("service", name, owner, changes(before, after, trained), before, after, touched)


def _trained_on(models: Models, service: str) -> Models:
    """Return the contracts of that service, by the model that goes by it: for its fallback the contract inside its own."""
    return {
        name: part
        for name, contract in models.items()
        for part in contract.with_fallback
        if part.feature_service == service
    }


def _model(old: Definitions, new: Definitions, models: Models) -> Iterator[Subject]:
    if old.model is None or new.model is None:
        return
    changes = readers.model_changes(old.model, new.model, models)
    touched = Touched(services=tuple(sorted(new.model.services)), models=tuple(models))
    yield from _subject("model", new.model.name, "", changes, old.model, new.model, touched)


def _subject(
    kind: str,
    name: str,
    owner: str,
    changes: Iterable[Change],
    before: object | None,
    after: object | None,
    touched: Touched,
) -> Iterator[Subject]:
    if found := tuple(changes):
        yield Subject(kind, name, owner, found, touched, is_new=before is None, is_gone=after is None)


def _pairs(
    old: Sequence[_Facts], new: Sequence[_Facts], name: Callable[[_Facts], str]
) -> Iterator[tuple[_Facts | None, _Facts | None]]:
    """Yield what has one name in both, in the new order, and then what is gone."""
    before, after = {name(fact): fact for fact in old}, {name(fact): fact for fact in new}
    for each in dict.fromkeys([*after, *before]):
        yield before.get(each), after.get(each)


def _named(before: _Facts | None, after: _Facts | None, names: Callable[[_Facts], tuple[str, str]]) -> tuple[str, str]:
    return names(_given(after if after is not None else before))


def _given(fact: _Facts | None) -> _Facts:
    if fact is None:
        raise ValueError("neither revision has it")
    return fact


def _views_that_read(old: Definitions, new: Definitions, name: str) -> tuple[str, ...]:
    every: Iterable[OnDemandFacts] = (*new.on_demand, *old.on_demand)
    return tuple(dict.fromkeys(view.name for view in every if name in {source for source, _ in view.reads}))


def _services_that_take(old: Definitions, new: Definitions, views: set[str]) -> tuple[str, ...]:
    every: Iterable[ServiceFacts] = (*new.services, *old.services)
    return tuple(dict.fromkeys(s.name for s in every if views & {view for view, _ in s.features}))

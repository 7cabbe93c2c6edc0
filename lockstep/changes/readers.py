"""What a change of an on-demand view, a service or the model's recipe takes: what was trained with it names it for good."""

from collections.abc import Iterator

from lockstep.changes import words
from lockstep.changes.describe import Definitions, ModelFacts, OnDemandFacts, ServiceFacts
from lockstep.changes.difference import Change, Consequence
from lockstep.changes.stored import Models, metadata
from lockstep.contract import OnDemand

_APPLY = "the next training takes it, once it is applied"


def new_on_demand(view: OnDemandFacts) -> Change:
    """Return what an on-demand view takes that was not there before."""
    told = f"{view.function}, {len(view.outputs)} features"
    return Change("view", "", told, Consequence.REGISTER, "it is computed when it is asked for: nothing to back-fill")


def gone_on_demand(view: OnDemandFacts, new: Definitions, models: Models) -> Change:
    """Return what an on-demand view takes that is no longer declared."""
    told = f"{view.function}, {len(view.outputs)} features"
    if not models:
        return Change("view", told, "", Consequence.NONE, "no model in use was trained with it")
    lost = new.functions.get(view.function) is None
    how = "its transformer would not start" if lost else "what training would contain could not be made any more"
    return Change("view", told, "", Consequence.BREAKS, f"{words.listed(models)} was trained with it: {how}")


def on_demand_changes(
    old: OnDemandFacts, new: OnDemandFacts, functions: dict[str, str | None], models: Models
) -> Iterator[Change]:
    """Yield how an on-demand view differs and what that takes.

    Args:
        old: the view as it was.
        new: as it is.
        functions: the hashes of the sources that are there now.
        models: the contracts of the models in use that list it.
    """
    trained = {name: _listed(models[name], old.name) for name in models}
    whose = f"{words.listed(models)} was trained with it"
    version, applied = (
        (Consequence.VERSION, f"{whose}; a published view is never edited"),
        (Consequence.REGISTER, _APPLY),
    )
    if old.function != new.function:
        yield Change("function", old.function, new.function, *(version if models else applied))
    refusing = [
        name
        for name, on_demand in trained.items()
        if on_demand.source_hash == old.source_hash and functions.get(on_demand.function) != old.source_hash
    ]
    if old.function == new.function and old.source_hash != new.source_hash:
        before, after = old.source_hash[:12], new.source_hash[:12]
        if refusing:
            how = (
                f"the contract of {words.listed(refusing)} names the old source: its transformer would refuse to start"
            )
            yield Change("source", before, after, Consequence.VERSION, how)
        else:
            yield Change("source", before, after, Consequence.REGISTER, _APPLY)
    for what in ("inputs", "outputs"):
        before, after = getattr(old, what), getattr(new, what)
        if before != after:
            told = words.only([words.columns([c]) for c in before], [words.columns([c]) for c in after])
            yield Change(what, *told, *(version if models else applied))
    if old.reads != new.reads:
        told = words.only([":".join(read) for read in old.reads], [":".join(read) for read in new.reads])
        yield Change("reads", *told, *(version if models else applied))
    yield from metadata(old, new)


def _listed(contract: object, name: str) -> OnDemand:
    return next(view for view in getattr(contract, "on_demand", ()) if view.name == name)


def new_service(service: ServiceFacts) -> Change:
    """Return what a service takes that was not there before."""
    return Change("service", "", f"{len(service.features)} features", Consequence.REGISTER, _APPLY)


def gone_service(service: ServiceFacts, models: Models) -> Change:
    """Return what a service takes that is no longer declared."""
    told = f"{len(service.features)} features"
    if not models:
        return Change("service", told, "", Consequence.NONE, "no model in use was trained on it")
    why = f"{words.listed(models)} was trained on it: what training would contain could not be made, so nor its parity"
    return Change("service", told, "", Consequence.BREAKS, why)


def service_changes(old: ServiceFacts, new: ServiceFacts, models: Models, *, trained: bool) -> Iterator[Change]:
    """Yield how a service differs and what that takes.

    Args:
        old: the service as it was.
        new: as it is.
        models: the contracts of the models in use, or of their fallbacks, that were trained on it.
        trained: whether the recipe trains on it.
    """
    if old.features != new.features:
        before, after = (
            [":".join(feature) for feature in old.features],
            [":".join(feature) for feature in new.features],
        )
        offered = set(new.features)
        lost = {
            name: [f"{f.view}:{f.name}" for f in contract.features if (f.view, f.name) not in offered]
            for name, contract in models.items()
        }
        hurt = [name for name, features in lost.items() if features]
        if hurt:
            consequence = Consequence.VERSION
            why = (
                f"{words.listed(hurt)} was trained on {words.listed(lost[hurt[0]])}: its parity could not be verified"
            )
        elif models or trained:
            consequence, why = Consequence.RETRAIN, "models in use go on with the features of their contract"
        else:
            consequence, why = Consequence.REGISTER, _APPLY
        yield Change("features", *words.only(before, after), consequence, why)
    if old.policy != new.policy:
        told = words.only(*([f"{name}: {what}" for name, what in service.policy.items()] for service in (old, new)))
        if models or trained:
            yield Change("policy", *told, Consequence.RETRAIN, "models in use go on with the policy of their contract")
        else:
            yield Change("policy", *told, Consequence.NONE, "no model was trained on it")
    yield from metadata(old, new)


def model_changes(old: ModelFacts, new: ModelFacts, models: Models) -> Iterator[Change]:
    """Yield how the recipe differs and what that takes."""
    if old.name != new.name:
        why = (
            f"{words.listed(models)} is not verified or promoted any more"
            if models
            else "none of that name is trained"
        )
        yield Change("name", old.name, new.name, Consequence.RETRAIN, why)
    if old.service != new.service:
        yield Change(
            "service", old.service, new.service, Consequence.RETRAIN, "it is in effect with the next training"
        )
    for part in dict.fromkeys([*old.recipe, *new.recipe]):
        before, after = old.recipe.get(part, ""), new.recipe.get(part, "")
        if before == after:
            continue
        if part == "requests":
            yield Change(part, before, after, Consequence.NONE, "the next shadow replay sends them")
        else:
            yield Change(part, before, after, Consequence.RETRAIN, "it is in effect with the next training")
    for part in dict.fromkeys([*old.thresholds, *new.thresholds]):
        was, is_now = (
            words.number(given[part]) if part in given else "" for given in (old.thresholds, new.thresholds)
        )
        if was != is_now:
            why = "the gate goes by it from the next promotion on"
            yield Change(f"threshold {part}", was, is_now, Consequence.NONE, why)

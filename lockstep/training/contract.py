"""Compile the contract of a feature service from the use case's declarations."""

from collections.abc import Iterable

from lockstep.contract import Column, Feature, FeatureContract, OnDemand, TrainingCut, stored_view
from lockstep.errors import BadInput, UseCaseError, nearest
from lockstep.views.declare import DataType, FeatureService, NullPolicy, OnDemandView, StoredView
from lockstep.views.use_case import UseCase


def compile_contract(use_case: UseCase, service_name: str, cut: TrainingCut) -> FeatureContract:
    """Return all that serving `service_name` exactly as it was trained takes, and what its fallback model takes.

    A model of the recipe's own service has the recipe's fallback; one of another service, a baseline say, has none.

    Views and on-demand views are in the order in which the service first needs them; a view lists just the columns that are
    read, in the view's own order.

    Args:
        use_case: the declarations.
        service_name: one of its feature services.
        cut: where the training set was cut.

    Raises:
        BadInput: there is no such service.
        UseCaseError: the service or one of its on-demand views names a feature that is not there, or one name twice; or the
            fallback's are none, or not some of the service's, or need a view whose objective is hard.
    """
    recipe = use_case.model
    service = use_case.service(service_name)
    if recipe.fallback is None or service.name != recipe.service.name:
        return _compile(use_case, service, cut)
    fallback = use_case.service(recipe.fallback.name)
    _refuse_fallback(service, fallback)
    return _compile(use_case, service, cut, _compile(use_case, fallback, cut))


def require_definitions(use_case: UseCase, training_set: str, contract: FeatureContract) -> None:
    """Refuse a training set of another project, or of definitions that are not these.

    Raises:
        BadInput: it is of such; what changed is named.
    """
    if contract.project != use_case.project:
        raise BadInput(f"{training_set} belongs to the project {contract.project!r}, not {use_case.project!r}")
    now = compile_contract(use_case, contract.feature_service, contract.cut)
    if now != contract:
        before, after = contract.model_dump(), now.model_dump()
        changed = ", ".join(key for key in before if before[key] != after[key])
        raise BadInput(
            f"{training_set} was built from other definitions than today's: {changed} changed",
            hint="build the training set again",
        )


def _compile(
    use_case: UseCase, service: FeatureService, cut: TrainingCut, fallback: FeatureContract | None = None
) -> FeatureContract:
    _refuse_contradictions(service)
    on_demand = {view.name: view for view, _ in service.features if isinstance(view, OnDemandView)}
    stored, columns = _stored(service)
    views = tuple(stored_view(stored[name], columns[name]) for name in stored)
    return FeatureContract(
        project=use_case.project,
        feature_service=service.name,
        join_keys=tuple(sorted(_union(key for v in views for key in v.join_keys), key=lambda key: key.name)),
        request_inputs=_union(column for view in on_demand.values() for column in _columns(view.inputs.items())),
        features=tuple(_feature(view, feature, service.policy.get(feature)) for view, feature in service.features),
        views=views,
        on_demand=tuple(_on_demand(view) for view in on_demand.values()),
        cut=cut,
        fallback=fallback,
    )


def _feature(view: StoredView | OnDemandView, name: str, policy: NullPolicy | None) -> Feature:
    policy = policy or NullPolicy("null")
    return Feature(
        name=name, view=view.name, dtype=view.features[name], when_null=policy.when_null, default=policy.default
    )


def _stored(service: FeatureService) -> tuple[dict[str, StoredView], dict[str, set[str]]]:
    """Return the stored views that the service or its on-demand views read, and which columns of each."""
    stored: dict[str, StoredView] = {}
    columns: dict[str, set[str]] = {}
    for view, feature in service.features:
        for source, column in view.reads if isinstance(view, OnDemandView) else ((view, feature),):
            stored.setdefault(source.name, source)
            columns.setdefault(source.name, set()).add(column)
    return stored, columns


def _on_demand(view: OnDemandView) -> OnDemand:
    return OnDemand(
        name=view.name,
        function=view.reference,
        source_hash=view.source_hash,
        inputs=_columns(view.inputs.items()),
        reads=tuple((source.name, column) for source, column in view.reads),
        outputs=_columns(view.outputs.items()),
        owner=view.owner,
    )


def _columns(named: Iterable[tuple[str, DataType]]) -> tuple[Column, ...]:
    return tuple(Column(name=name, dtype=dtype) for name, dtype in named)


def _union(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Return each column once, in the order given.

    Raises:
        UseCaseError: one name comes with two types.
    """
    found: dict[str, Column] = {}
    for column in columns:
        if found.setdefault(column.name, column) != column:
            raise UseCaseError(f"{column.name} is both {found[column.name].dtype} and {column.dtype}")
    return tuple(found.values())


def _refuse_contradictions(service: FeatureService) -> None:
    names = [feature for _, feature in service.features]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UseCaseError(
            f"service {service.name} lists {', '.join(twice)} twice", hint="a model's inputs need names"
        )
    if unknown := sorted(set(service.policy) - set(names)):
        raise UseCaseError(
            f"the policy of service {service.name} is about {unknown[0]!r}, which it does not list",
            hint=nearest(unknown[0], names),
        )
    for view, feature in service.features:
        _require_feature(f"service {service.name}", view, feature)
        if isinstance(view, OnDemandView):
            for source, column in view.reads:
                _require_feature(f"on-demand view {view.name}", source, column)
            taken = [*view.inputs, *(column for _, column in view.reads)]
            if twice := sorted({name for name in taken if taken.count(name) > 1}):
                raise UseCaseError(f"on-demand view {view.name} takes {', '.join(twice)} from two places")


def _refuse_fallback(service: FeatureService, fallback: FeatureService) -> None:
    if not fallback.features:
        raise UseCaseError(
            f"the fallback {fallback.name} takes no features", hint="list some of the service's, or train none of it"
        )
    if foreign := sorted({str(ref.feature) for ref in set(fallback.refs) - set(service.refs)}):
        raise UseCaseError(
            f"the fallback {fallback.name} takes {', '.join(foreign)}, which {service.name} does not",
            hint="both models are trained on one set of rows: list features of the service",
        )
    views, _ = _stored(fallback)
    if late := sorted(view.name for view in views.values() if view.freshness.hard):
        raise UseCaseError(
            f"the fallback {fallback.name} needs {', '.join(late)}, whose objective is hard",
            hint="it answers while such a view is late: leave out what is made of it",
        )


def _require_feature(who: str, view: StoredView | OnDemandView, feature: str) -> None:
    if feature not in view.features:
        raise UseCaseError(
            f"{who} names {view.name}:{feature}, which is not there", hint=nearest(feature, view.features)
        )

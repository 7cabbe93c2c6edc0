"""The public way to history: a service's features for entity rows, through Feast, as one Arrow table."""

from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
from feast.errors import FeastObjectNotFoundException

from lockstep.errors import BadInput, SchemaDrift
from lockstep.offline.cut import Cut, reading
from lockstep.offline.job import LakeRetrievalJob
from lockstep.offline.registry import feature_store
from lockstep.settings import Settings
from lockstep.views import feast as derived
from lockstep.views.declare import ARROW_TYPES, FeatureService, StoredView
from lockstep.views.use_case import UseCase


@dataclass(frozen=True)
class Retrieved:
    """What a retrieval gave.

    Attributes:
        rows: the spine as it is, with the features.
        cut: what was read: the same spine at this cut gives the same rows again, as long as its snapshots live.
    """

    rows: pa.Table
    cut: Cut


def training_features(
    settings: Settings, use_case: UseCase, service_name: str, spine: pa.Table, cut: Cut | None = None
) -> Retrieved:
    """Return the spine as it is, with the service's features in its order and in the types declared.

    Args:
        settings: where the lake and the registry are.
        use_case: what declares the service.
        service_name: the service.
        spine: entity rows: join keys, `event_timestamp` and the request's inputs; other columns are passed through.
        cut: which snapshots to read; None reads the newest.

    Raises:
        BadInput: there is no such service, the registry is not what the use case declares, or the spine cannot be answered.
        SchemaDrift: a feature is not of its declared type.
    """
    service = use_case.service(service_name)
    names = [feature for _, feature in service.features]
    clash = sorted({name for name in names if names.count(name) > 1 or name in spine.column_names})
    if clash:
        raise BadInput(
            f"the service {service_name} gives {', '.join(clash)}, which the result would have twice",
            hint="rename the spine's column; a feature, on demand or stored, never shares a name with an input",
        )
    store = feature_store(settings, use_case)
    _require_applied(store, service, use_case.project)
    with reading(cut):
        job = store.get_historical_features(
            # Feast passes an Arrow table through as it is; a pandas one would turn integers with nulls into floats.
            entity_df=cast("Any", spine),
            features=store.get_feature_service(service_name),
            full_feature_names=True,
        )
    found = job.to_arrow()
    result = found.select(spine.column_names)
    for view, feature in service.features:
        values, declared = found[f"{view.name}__{feature}"], ARROW_TYPES[view.features[feature]]
        if values.type != declared and not pa.types.is_null(values.type):
            raise SchemaDrift(f"{view.name}:{feature} is {values.type}, not the declared {declared}")
        result = result.append_column(pa.field(feature, declared), values.cast(declared))
    return Retrieved(result, cast("LakeRetrievalJob", job).metadata.cut)


def _require_applied(store: Any, service: FeatureService, project: str) -> None:
    """Refuse a registry that would answer by other definitions than those at hand."""
    try:
        registered = store.get_feature_service(service.name)
        changed = registered != derived.feature_service(service, project)
        for view in {view.name: view for view, _ in service.features}.values():
            if isinstance(view, StoredView):
                changed |= store.get_feature_view(view.name) != derived.feature_view(view, project)
                continue
            changed |= store.get_on_demand_feature_view(view.name) != derived.on_demand_feature_view(view, project)
            for source in {source.name: source for source, _ in view.reads}.values():
                changed |= store.get_feature_view(source.name) != derived.feature_view(source, project)
    except FeastObjectNotFoundException as absent:
        raise BadInput(f"the registry does not know {absent}", hint="apply the definitions first") from absent
    if changed:
        raise BadInput(
            f"the registry's definition of {service.name} or of a view of it is not the use case's",
            hint="apply the definitions first",
        )

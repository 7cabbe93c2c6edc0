"""What the champion says to the very rows that a new model is judged on."""

from typing import Any

import pyarrow as pa

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.offline.cut import Cut
from lockstep.serving.artifact import load_artifact
from lockstep.settings import Settings
from lockstep.training.contract import compile_contract
from lockstep.training.evaluation.document import ModelNamed
from lockstep.training.evaluation.evaluate import Champion
from lockstep.training.fit import given
from lockstep.training.protocol import SPLIT, TEST
from lockstep.training.registry import CHAMPION, find_model
from lockstep.training.training_set import newest_snapshots
from lockstep.views.use_case import UseCase

_UNDECISIVE = {
    "features": {"tolerance", "when_null", "default"},
    "views": {"owner", "freshness_us", "freshness_hard"},
    "on_demand": {"owner"},
}


def find_champion(
    settings: Settings, use_case: UseCase, lake: Lake, contract: FeatureContract, held_out: pa.Table
) -> Champion | None:
    """Return the champion with its scores of the rows held out; None if there is none.

    Where it takes features that are not in the set, they are retrieved at the set's cut. A row that its own policy rejects gets
    the score 0, as it does of every model.

    Args:
        settings: name the lake and the tracking store.
        use_case: declares the champion's service.
        lake: has the tables.
        contract: what the rows were retrieved for.
        held_out: rows of the training set.

    Raises:
        BadInput: the champion cannot be asked any more: its service or a definition of it is not what it was.
    """
    champion = find_model(settings, use_case.model.name, CHAMPION)
    if champion is None:
        return None
    theirs = champion.contract
    if deciding(compile_contract(use_case, theirs.feature_service, theirs.cut)) != deciding(theirs):
        raise BadInput(
            f"champion {champion.version} was trained on other definitions than today's of {theirs.feature_service}",
            hint="what it would say to these rows cannot be told; promote a model of today's definitions first",
        )
    rows = held_out
    if not {(f.view, f.name) for f in theirs.features} <= {(f.view, f.name) for f in contract.features}:
        rows = _retrieved(settings, use_case, lake, contract, theirs, held_out)
    asked = given(use_case.model, theirs, rows, TEST)
    scores = asked.scores(load_artifact(champion.model_dir).estimator)
    named = ModelNamed(
        name=use_case.model.name, digest=champion.digest, contract=theirs.hash, version=champion.version
    )
    return Champion(named, scores)


def deciding(contract: FeatureContract) -> dict[str, Any]:
    """Return what decides the values of a contract's features, and nothing else.

    Not the cut, the fallback, owners or objectives; nor the policy, which the model takes from its own contract.
    """
    told = contract.model_dump(include={"project", "join_keys", "request_inputs", "features", "views", "on_demand"})
    for kind, others in _UNDECISIVE.items():
        told[kind] = [{key: value for key, value in each.items() if key not in others} for each in told[kind]]
    return told


def _retrieved(
    settings: Settings,
    use_case: UseCase,
    lake: Lake,
    contract: FeatureContract,
    theirs: FeatureContract,
    held_out: pa.Table,
) -> pa.Table:
    """Retrieve the champion's features at the set's cut; a table that is not in the cut is read as it is now."""
    from lockstep.offline.history import training_features  # noqa: PLC0415 - imports Feast, 4 s; rarely needed

    bare = held_out.drop_columns([SPLIT, *(f.name for f in contract.features)])
    tables, cut = {view.table for view in theirs.views}, contract.cut.snapshots
    snapshots = newest_snapshots(lake, tables - cut.keys()) | {table: cut[table] for table in tables & cut.keys()}
    found = training_features(
        settings, use_case, theirs.feature_service, bare, Cut(snapshots, contract.cut.known_at)
    ).rows
    return found.append_column(SPLIT, held_out[SPLIT])

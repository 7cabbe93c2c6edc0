"""Fit the use case's model on a training set, judge it on the held-out days, and register it as the challenger."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import skops.io
from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Experiment, LoggedModel
from mlflow.models import infer_signature
from mlflow.sklearn import log_model
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from lockstep.contract import FeatureContract, TableCut
from lockstep.errors import BadInput, Terminal, UseCaseError
from lockstep.hashing import digest
from lockstep.lake import Lake
from lockstep.serving.artifact import contract_metadata, load_artifact
from lockstep.settings import Settings
from lockstep.threads import one_thread
from lockstep.training.contract import compile_contract
from lockstep.training.registry import (
    CHALLENGER,
    CONTRACT_TAG,
    DIGEST_TAG,
    PARITY_TAG,
    aliased,
    local_folder,
    open_client,
    quiet,
)
from lockstep.training.spine import TEST, TRAIN, rows_of
from lockstep.training.training_set import read_training_set
from lockstep.views.use_case import ModelRecipe, UseCase

# Feast's own UI and `resolve_features` look for this one.
SERVICE_TAG = "feast.feature_service"
TRAINING_SET_TAG = "lockstep.training_set"
RECIPE_TAG = "lockstep.recipe"


@dataclass(frozen=True)
class Trained:
    """A registered version of the model.

    Attributes:
        model_uri: where a predictor loads it from.
        model_dir: the same as a local folder.
        digest: of the folder; see `lockstep.serving.artifact.model_digest`.
        metrics: average_precision, auc and no_skill (the share of positives: the average precision of a guess) on the test
            rows; train_rows, test_rows, test_positives.
    """

    model_name: str
    version: int
    model_uri: str
    model_dir: Path
    digest: str
    contract_hash: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class _Fitted:
    estimator: Any
    metrics: Mapping[str, float]
    probabilities: NDArray[np.float64]


def train(settings: Settings, use_case: UseCase, training_set: str) -> Trained:
    """Fit, judge and register the model; on the same training set with the same recipe, return the version there is.

    Nothing is registered before the artifact was opened the way a predictor opens it and gave the estimator's own answers.

    Args:
        settings: name the lake and the tracking store.
        use_case: its recipe says what is fitted.
        training_set: the table that `build_training_set` made.

    Raises:
        BadInput: the table is no training set, or was made from other definitions than these.
        UseCaseError: the estimator does not take the features as they are, or does not serialize under its allow-list.
        Refused: it holds types that no predictor loads.
    """
    recipe = use_case.model
    lake = Lake.open(settings, use_case.project)
    rows, contract = read_training_set(lake, training_set)
    _refuse_other_definitions(use_case, training_set, contract)
    made_by = {TRAINING_SET_TAG: training_set, RECIPE_TAG: _recipe_digest(recipe)}
    with quiet():
        mlflow.set_tracking_uri(settings.tracking_url)
        mlflow.set_registry_uri(settings.tracking_url)
        client = open_client(settings)
        version = _registered(client, recipe.name, made_by)
    if version is None:
        with one_thread():
            fitted = _fit(recipe, contract, rows)  # not quietly: its warnings are the model owner's
        with quiet(), one_thread():
            model = _log(settings, lake, client, use_case, training_set, contract, fitted)
            made = _opened_digest(local_folder(model.artifact_location), contract, rows, fitted)
            version = _register(client, recipe.name, model, _tags(contract, made) | made_by)
    with quiet():
        _challenge(client, recipe.name, version)
        return _trained(client, recipe.name, version)


def matrix(contract: FeatureContract, rows: pa.Table) -> NDArray[np.float64]:
    """Return the features in the contract's order as float64, null as NaN: what the estimator sees."""
    columns = [_float64(rows[feature.name]) for feature in contract.features]
    return np.column_stack(columns) if columns else np.empty((rows.num_rows, 0))


def _float64(values: pa.ChunkedArray) -> NDArray[np.float64]:
    # The cast is checked: an integer past 2**53, which float64 cannot hold, is an error and not a nearby number.
    return values.cast(pa.float64()).fill_null(float("nan")).to_numpy()


def _refuse_other_definitions(use_case: UseCase, training_set: str, contract: FeatureContract) -> None:
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


def _fit(recipe: ModelRecipe, contract: FeatureContract, rows: pa.Table) -> _Fitted:
    train_rows, test_rows = (rows_of(rows, split) for split in (TRAIN, TEST))
    labels = test_rows[recipe.label].to_numpy()
    estimator = recipe.estimator()
    estimator.fit(matrix(contract, train_rows), train_rows[recipe.label].to_numpy())
    _refuse_unfit(recipe, estimator, len(contract.features))
    probabilities = estimator.predict_proba(matrix(contract, test_rows))
    scores = probabilities[:, 1]
    metrics = {
        "average_precision": float(average_precision_score(labels, scores)),
        "auc": float(roc_auc_score(labels, scores)),
        "no_skill": float(labels.mean()),
        "train_rows": float(train_rows.num_rows),
        "test_rows": float(test_rows.num_rows),
        "test_positives": float(labels.sum()),
    }
    return _Fitted(estimator, metrics, probabilities)


def _refuse_unfit(recipe: ModelRecipe, estimator: Any, features: int) -> None:
    if not hasattr(estimator, "predict_proba"):
        raise UseCaseError(f"the estimator of model {recipe.name!r} has no predict_proba")
    width = getattr(estimator, "n_features_in_", None)
    if width != features:
        raise UseCaseError(
            f"the estimator of model {recipe.name!r} takes {width} features of {features}",
            hint="choose features in the service, not in the estimator",
        )
    if hasattr(estimator, "feature_names_in_"):
        raise UseCaseError(
            f"the estimator of model {recipe.name!r} names its features itself",
            hint="it is given a matrix in the service's order, and must keep to that",
        )
    unknown = set(skops.io.get_untrusted_types(data=skops.io.dumps(estimator))) - set(recipe.trusted_types)
    if unknown:
        raise UseCaseError(
            f"the estimator of model {recipe.name!r} holds types that are not trusted: {', '.join(sorted(unknown))}",
            hint="after a review, add them to the recipe's trusted_types",
        )


def _log(
    settings: Settings,
    lake: Lake,
    client: MlflowClient,
    use_case: UseCase,
    training_set: str,
    contract: FeatureContract,
    fitted: _Fitted,
) -> LoggedModel:
    """Log the run, its inputs and the model; return what MLflow knows of the model."""
    recipe = use_case.model
    experiment = _experiment(settings, client, use_case.project)
    # All zeros, so that the signature says the same whether or not some value was missing in training.
    example = pd.DataFrame(np.zeros((1, len(contract.features))), columns=[f.name for f in contract.features])
    with mlflow.start_run(experiment_id=experiment.experiment_id, run_name=training_set):
        _log_inputs(lake, training_set, contract)
        mlflow.log_params({name: repr(value) for name, value in fitted.estimator.get_params().items()})
        mlflow.log_metrics(dict(fitted.metrics))
        logged = log_model(
            fitted.estimator,
            name=recipe.name,
            serialization_format="skops",
            skops_trusted_types=list(recipe.trusted_types),
            # Given, because MLflow would take seconds to find them out.
            pip_requirements=[f"{name}=={installed(name)}" for name in ("numpy", "scikit-learn", "scipy", "skops")],
            signature=infer_signature(example, fitted.probabilities[:1]),
            pyfunc_predict_fn="predict_proba",
            metadata=contract_metadata(contract, recipe.trusted_types),
        )
    # Bound: a run's `__exit__` is typed as if it could swallow an exception, and never does.
    return client.get_logged_model(logged.model_id)  # pyright: ignore[reportPossiblyUnboundVariable]


def _experiment(settings: Settings, client: MlflowClient, name: str) -> Experiment:
    found = client.get_experiment_by_name(name)
    if found is None:
        embedded = settings.tracking_url.startswith("sqlite:")
        location = (settings.home.resolve() / "mlartifacts").as_uri() if embedded else None
        found = client.get_experiment(client.create_experiment(name, artifact_location=location))
    return found


def _log_inputs(lake: Lake, training_set: str, contract: FeatureContract) -> None:
    """Log the training set and each table it was cut from, with their snapshots, as the run's datasets."""
    own = TableCut(table=training_set, snapshot_id=lake.snapshots(training_set)[0].id, tag="")
    for context, cut in (("training", own), *(("source", cut) for cut in contract.cut.tables)):
        source = resolve_dataset_source(lake.table(cut.table).location())
        mlflow.log_input(
            MetaDataset(source, name=cut.table, digest=str(cut.snapshot_id)),
            context=context,
            tags={"iceberg.table": cut.table, "iceberg.snapshot_id": str(cut.snapshot_id)},
        )


def _opened_digest(folder: Path, contract: FeatureContract, rows: pa.Table, fitted: _Fitted) -> str:
    """Open the artifact as a predictor does; return its digest."""
    artifact = load_artifact(folder)
    answers = artifact.estimator.predict_proba(matrix(contract, rows_of(rows, TEST)))
    if artifact.contract != contract or not np.array_equal(answers, fitted.probabilities):
        raise Terminal(f"{folder} does not give back what was logged", hint="the estimator does not survive skops")
    return artifact.digest


def _tags(contract: FeatureContract, model_digest: str) -> dict[str, str]:
    return {
        SERVICE_TAG: contract.feature_service,
        CONTRACT_TAG: contract.hash,
        DIGEST_TAG: model_digest,
        PARITY_TAG: "pending",
    }


def _recipe_digest(recipe: ModelRecipe) -> str:
    """Return the digest of what is fitted: the estimator's class and parameters, and the release that fits it."""
    estimator = recipe.estimator()
    kind = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
    return digest(
        [
            kind,
            installed("scikit-learn"),
            sorted((name, repr(value)) for name, value in estimator.get_params().items()),
        ]
    )


def _registered(client: MlflowClient, name: str, made_by: Mapping[str, str]) -> int | None:
    """Return the newest version with these tags."""
    versions = client.search_model_versions(f"name = '{name}'")
    return max((int(v.version) for v in versions if made_by.items() <= v.tags.items()), default=None)


def _register(client: MlflowClient, name: str, model: LoggedModel, tags: Mapping[str, str]) -> int:
    """Register a version with its tags in one call, so that none is ever seen without them."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(
        name, model.model_uri, run_id=model.source_run_id, tags=dict(tags), model_id=model.model_id
    )
    return int(version.version)


def _challenge(client: MlflowClient, name: str, version: int) -> None:
    """Make the version the challenger, unless a later one is or it has been promoted: a rerun never moves an alias back."""
    if client.get_model_version(name, str(version)).aliases:
        return
    current = aliased(client, name, CHALLENGER)
    if current is None or int(current.version) < version:
        client.set_registered_model_alias(name, CHALLENGER, str(version))


def _trained(client: MlflowClient, name: str, version: int) -> Trained:
    found = client.get_model_version(name, str(version))
    uri = client.get_model_version_download_uri(name, str(version))
    if found.run_id is None:
        raise Terminal(f"{name} version {version} was registered without a run")
    return Trained(
        model_name=name,
        version=version,
        model_uri=uri,
        model_dir=local_folder(uri),
        digest=found.tags[DIGEST_TAG],
        contract_hash=found.tags[CONTRACT_TAG],
        metrics=client.get_run(found.run_id).data.metrics,
    )

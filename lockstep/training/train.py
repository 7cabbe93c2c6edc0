"""Fit the use case's model and its fallback on a training set, and log both with their contract; nothing is registered yet."""

import logging
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory

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

from lockstep.contract import FeatureContract, TableCut
from lockstep.errors import Terminal
from lockstep.lake import Lake
from lockstep.serving.artifact import FALLBACK_FILE, contract_metadata, load_artifact
from lockstep.settings import Settings
from lockstep.threads import one_thread
from lockstep.training.contract import require_definitions
from lockstep.training.fit import Fitted, fit, given, recipe_digest
from lockstep.training.logged import RECIPE_TAG, TRAINING_SET_TAG, Logged, experiment_of, find_logged, opened
from lockstep.training.protocol import TEST
from lockstep.training.registry import CONTRACT_TAG, DIGEST_TAG, SERVICE_TAG, local_folder, open_client, quiet
from lockstep.training.training_set import read_training_set
from lockstep.views.use_case import ModelRecipe, UseCase


def train(settings: Settings, use_case: UseCase, training_set: str) -> Logged:
    """Fit and log the model; on the same training set with the same recipe, return the one there is.

    The fallback model, if the contract has one, is fitted on the same rows and lies in the same folder. The folder is opened the
    way a predictor opens it, and must give both estimators' own answers, before it can be found by any later step.

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
    require_definitions(use_case, training_set, contract)
    made_by = {TRAINING_SET_TAG: training_set, RECIPE_TAG: recipe_digest(recipe)}
    with quiet():
        mlflow.set_tracking_uri(settings.tracking_url)
        mlflow.set_registry_uri(settings.tracking_url)
        client = open_client(settings)
        experiment = experiment_of(settings, client, use_case.project)
        found = _sound(client, find_logged(client, experiment, made_by))
    if found is not None:
        return found
    with one_thread():  # not quietly: an estimator's warnings are the model owner's
        fitted = fit(recipe, contract, rows)
        fallback = fit(recipe, contract.fallback, rows) if contract.fallback else None
    with quiet(), one_thread():
        model = _log(lake, client, experiment, recipe, training_set, contract, fitted, fallback)
        digest = _opened_digest(local_folder(model.artifact_location), recipe, contract, rows, fitted, fallback)
        tags = {SERVICE_TAG: contract.feature_service, CONTRACT_TAG: contract.hash, DIGEST_TAG: digest}
        client.set_logged_model_tags(model.model_id, tags | made_by)
        return opened(client, client.get_logged_model(model.model_id))


def _sound(client: MlflowClient, found: LoggedModel | None) -> Logged | None:
    """Return a model that was logged before if it can still be used; one that somebody changed or deleted is made anew."""
    if found is None:
        return None
    try:
        return opened(client, found)
    except Terminal as damaged:
        logging.getLogger(__name__).warning("%s is fitted anew: %s", found.model_id, damaged)
        return None


def _log(
    lake: Lake,
    client: MlflowClient,
    experiment: Experiment,
    recipe: ModelRecipe,
    training_set: str,
    contract: FeatureContract,
    fitted: Fitted,
    fallback: Fitted | None,
) -> LoggedModel:
    """Log the run, its inputs and both models in one folder; return what MLflow knows of it."""
    # All zeros, so that the signature says the same whether or not some value was missing in training.
    example = pd.DataFrame(np.zeros((1, len(contract.features))), columns=[f.name for f in contract.features])
    with (
        TemporaryDirectory() as scratch,
        mlflow.start_run(experiment_id=experiment.experiment_id, run_name=training_set),
    ):
        _log_inputs(lake, training_set, contract)
        mlflow.log_params({name: repr(value) for name, value in fitted.estimator.get_params().items()})
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
            extra_files=[_saved(fallback, Path(scratch))] if fallback else None,
        )
    # Bound: a run's `__exit__` is typed as if it could swallow an exception, and never does.
    return client.get_logged_model(logged.model_id)  # pyright: ignore[reportPossiblyUnboundVariable]


def _saved(fallback: Fitted, folder: Path) -> str:
    path = folder / Path(FALLBACK_FILE).name
    skops.io.dump(fallback.estimator, path)
    return str(path)


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


def _opened_digest(
    folder: Path,
    recipe: ModelRecipe,
    contract: FeatureContract,
    rows: pa.Table,
    fitted: Fitted,
    fallback: Fitted | None,
) -> str:
    """Open the folder as a predictor does, and have both models answer once more; return its digest."""
    artifact = load_artifact(folder)
    pairs = [(artifact.estimator, given(recipe, contract, rows, TEST), fitted)]
    if contract.fallback and fallback:
        pairs.append((artifact.fallback, given(recipe, contract.fallback, rows, TEST), fallback))
    same = artifact.contract == contract and all(
        np.array_equal(estimator.predict_proba(asked.vectors[asked.answered]), made.probabilities)
        for estimator, asked, made in pairs
    )
    if not same:
        raise Terminal(f"{folder} does not give back what was logged", hint="the estimator does not survive skops")
    return artifact.digest

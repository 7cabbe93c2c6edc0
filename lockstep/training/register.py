"""Register a logged model with the evaluation that speaks for it, and make it the challenger."""

from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient

from lockstep.errors import Refused
from lockstep.lake import Lake
from lockstep.settings import Settings
from lockstep.training.evaluations import load_evaluation
from lockstep.training.logged import TRAINING_SET_TAG, Logged, open_logged
from lockstep.training.registry import (
    CHALLENGER,
    CONTRACT_TAG,
    DIGEST_TAG,
    EVALUATION_TAG,
    PARITY_TAG,
    SERVICE_TAG,
    aliased,
    open_client,
    quiet,
)
from lockstep.views.use_case import UseCase


@dataclass(frozen=True)
class Registered:
    """A version of the registered model.

    Attributes:
        digest: of its folder; see `lockstep.serving.artifact.model_digest`.
    """

    model_name: str
    version: int
    model_uri: str
    model_dir: Path
    digest: str


def register(settings: Settings, use_case: UseCase, model: str, evaluation: str) -> Registered:
    """Register a model as the challenger; the same model again is found, not registered twice.

    Args:
        settings: name the lake and the tracking store.
        use_case: names the registered model.
        model: MLflow's id of the logged model.
        evaluation: the name of the evaluation that speaks for it.

    Raises:
        BadInput: there is no such model or evaluation.
        Refused: the evaluation is of another model, or it raised an alarm.
    """
    logged = open_logged(settings, model)
    found = load_evaluation(settings, Lake.open(settings, use_case.project), evaluation)
    if found.model.digest != logged.digest:
        raise Refused(
            f"the evaluation {evaluation[:12]} is of the model {found.model.digest[:12]}, not of {logged.digest[:12]}"
        )
    if found.alarms:
        raise Refused(f"{model} is not registered: {', '.join(sorted({alarm.name for alarm in found.alarms}))}")
    with quiet():
        mlflow.set_registry_uri(settings.tracking_url)
        client = open_client(settings)
        name = use_case.model.name
        version = _registered(client, name, logged.digest)
        if version is None:
            version = _register(client, name, logged, evaluation)
        else:
            client.set_model_version_tag(name, str(version), EVALUATION_TAG, evaluation)
        _challenge(client, name, version)
    return Registered(name, version, logged.model_uri, logged.model_dir, logged.digest)


def _registered(client: MlflowClient, name: str, digest: str) -> int | None:
    """Return the newest version of that digest."""
    versions = client.search_model_versions(f"name = '{name}'")
    return max((int(v.version) for v in versions if v.tags.get(DIGEST_TAG) == digest), default=None)


def _register(client: MlflowClient, name: str, logged: Logged, evaluation: str) -> int:
    """Register a version with its tags in one call, so that none is ever seen without them."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {
        SERVICE_TAG: logged.contract.feature_service,
        CONTRACT_TAG: logged.contract.hash,
        DIGEST_TAG: logged.digest,
        TRAINING_SET_TAG: logged.training_set,
        EVALUATION_TAG: evaluation,
        PARITY_TAG: "pending",
    }
    version = client.create_model_version(
        name, f"models:/{logged.model}", run_id=logged.run, tags=tags, model_id=logged.model
    )
    return int(version.version)


def _challenge(client: MlflowClient, name: str, version: int) -> None:
    """Make the version the challenger, unless a later one is or it has been promoted: a rerun never moves an alias back."""
    if client.get_model_version(name, str(version)).aliases:
        return
    current = aliased(client, name, CHALLENGER)
    if current is None or int(current.version) < version:
        client.set_registered_model_alias(name, CHALLENGER, str(version))

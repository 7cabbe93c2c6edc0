"""Register a logged model with the evaluation that speaks for it, and make it the challenger."""

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lockstep.errors import Refused, Transient
from lockstep.lake import Lake
from lockstep.settings import Settings
from lockstep.training.contract import require_definitions
from lockstep.training.evaluations import alarmed, load_evaluation
from lockstep.training.logged import TRAINING_SET_TAG, Logged, open_logged
from lockstep.training.registry import (
    CHALLENGER,
    CONTRACT_TAG,
    DIGEST_TAG,
    EVALUATION_TAG,
    PARITY_TAG,
    PENDING,
    SERVICE_TAG,
    aliased,
    open_client,
    quiet,
)
from lockstep.training.rules import rules_of, unsound
from lockstep.views.use_case import UseCase


def register(settings: Settings, use_case: UseCase, model: str, evaluation: str) -> int:
    """Register a model as the challenger and return its version; the same model again is found, not registered twice.

    Args:
        settings: name the lake and the tracking store.
        use_case: names the registered model.
        model: MLflow's id of the logged model.
        evaluation: the name of the evaluation that speaks for it.

    Raises:
        BadInput: there is no such model or evaluation, or the definitions have changed since its training set was built.
        Refused: the evaluation is of another model or by other rules than today's, or one of this model raised an alarm.
        Transient: somebody else registered a model at the same time.
    """
    logged = open_logged(settings, model)
    lake = Lake.open(settings, use_case.project)
    require_definitions(use_case, logged.training_set, logged.contract)
    found = load_evaluation(settings, lake, evaluation)
    against = unsound(use_case.model, found, logged.digest, logged.contract.hash)
    against += alarmed(settings, lake, logged.digest, rules_of(use_case.model), beside=evaluation)
    if against:
        raise Refused(f"{model} is not registered: {'; '.join(against)}")
    with quiet():
        mlflow.set_registry_uri(settings.tracking_url)
        client = open_client(settings)
        name = use_case.model.name
        version = _registered(client, name, logged.digest)
        if version is None:
            version = _register(client, name, logged, evaluation)
        elif not _decided(client, name, version):
            client.set_model_version_tag(name, str(version), EVALUATION_TAG, evaluation)
        try:
            _challenge(client, name, version)
        except MlflowException as raced:
            raise Transient(f"the alias {CHALLENGER} of {name} was moved at the same time: {raced}") from raced
    return version


def _decided(client: MlflowClient, name: str, version: int) -> bool:
    """Tell whether the version has been promoted, or refused for good: what was decided on stays as it was."""
    found = client.get_model_version(name, str(version))
    return found.tags.get(PARITY_TAG, PENDING) != PENDING


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
        PARITY_TAG: PENDING,
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

"""A model that MLflow knows and the registry does not yet: found again by what it was made of, and opened as it is.

https://mlflow.org/docs/latest/ml/model/ (logged models)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, LoggedModel
from mlflow.exceptions import MlflowException

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, Terminal
from lockstep.serving.artifact import load_contract, model_digest
from lockstep.settings import Settings
from lockstep.training.registry import DIGEST_TAG, local_folder, open_client, quiet

TRAINING_SET_TAG = "lockstep.training_set"
RECIPE_TAG = "lockstep.recipe"


@dataclass(frozen=True)
class Logged:
    """A fitted model in the tracking store.

    Attributes:
        model: MLflow's id of it, `m-...`.
        run: the run that logged it.
        model_uri: where a predictor loads it from.
        model_dir: the same as a local folder.
        digest: of the folder; see `lockstep.serving.artifact.model_digest`.
        contract: what it was trained on.
        training_set: the table it was fitted on.
    """

    model: str
    run: str
    model_uri: str
    model_dir: Path
    digest: str
    contract: FeatureContract
    training_set: str


def experiment_of(settings: Settings, client: MlflowClient, name: str) -> Experiment:
    """Return the project's experiment; an embedded store keeps its artifacts below home."""
    found = client.get_experiment_by_name(name)
    if found is None:
        embedded = settings.tracking_url.startswith("sqlite:")
        location = (settings.home.resolve() / "mlartifacts").as_uri() if embedded else None
        found = client.get_experiment(client.create_experiment(name, artifact_location=location))
    return found


def find_logged(client: MlflowClient, experiment: Experiment, tags: Mapping[str, str]) -> LoggedModel | None:
    """Return the newest model of the experiment with these tags.

    They are given last of all, so that a model that was not logged to the end is never found.
    """
    wanted = " AND ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_logged_models([experiment.experiment_id], filter_string=wanted, max_results=1)
    return found[0] if found else None


def open_logged(settings: Settings, model: str) -> Logged:
    """Return a logged model by MLflow's id of it.

    Raises:
        BadInput: there is none, it was not logged to the end, or its run was deleted.
        Terminal: its folder is not what was logged.
        NotYetSupported: its folder is not on a local disk.
    """
    with quiet():
        client = open_client(settings)
        try:
            found = client.get_logged_model(model)
        except MlflowException as absent:
            raise BadInput(f"there is no model {model!r}", hint="train one; its id begins with 'm-'") from absent
        return opened(client, found)


def opened(client: MlflowClient, found: LoggedModel) -> Logged:
    """Return a logged model with its contract; the errors are those of `open_logged`."""
    if DIGEST_TAG not in found.tags or found.source_run_id is None:
        raise BadInput(f"the model {found.model_id} was not logged to the end", hint="train again")
    if client.get_run(found.source_run_id).info.lifecycle_stage != LifecycleStage.ACTIVE:
        raise BadInput(f"the run of the model {found.model_id} was deleted", hint="restore it, or train again")
    folder = local_folder(found.artifact_location)
    digest = model_digest(folder)
    if digest != found.tags[DIGEST_TAG]:
        raise Terminal(
            f"the model {found.model_id} is not what was logged: its folder has digest {digest}, "
            f"MLflow says {found.tags[DIGEST_TAG]}",
            hint=f"somebody changed {folder}; train again",
        )
    return Logged(
        model=found.model_id,
        run=found.source_run_id,
        model_uri=found.artifact_location,
        model_dir=folder,
        digest=digest,
        contract=load_contract(folder),
        training_set=found.tags[TRAINING_SET_TAG],
    )

"""A model: trained, judged, registered as the challenger, opened as a predictor opens it; and what is never registered."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pytest
import yaml
from mlflow.telemetry.utils import is_telemetry_disabled
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.svm import LinearSVC
from whole import Project, Trained, train_whole

from lockstep.errors import BadInput, NotYetSupported, Terminal, UseCaseError
from lockstep.lake import Lake
from lockstep.serving.artifact import load_artifact
from lockstep.serving.features import feature_matrix
from lockstep.settings import Settings
from lockstep.threads import one_thread
from lockstep.training import registry
from lockstep.training.judge import summary
from lockstep.training.spine import rows_of
from lockstep.training.train import train
from lockstep.training.training_set import read_training_set
from lockstep.views import UseCase


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in training itself: two threads on a busy machine took 7 s for 72 rows, one takes 0.1."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def project(new_settings: Callable[[], Settings], use_case: UseCase) -> Project:
    return Project.of(new_settings(), use_case)


def split(project: Project, name: str) -> pa.Table:
    return rows_of(project.rows, name)


def test_the_challenger_answers_as_the_estimator_fitted_by_hand(project: Project, trained: Trained) -> None:
    contract = project.training_set.contract
    by_hand = project.use_case.model.estimator().fit(
        feature_matrix(contract, split(project, "train")), split(project, "train")["tx_fraud"].to_numpy()
    )

    found = registry.require_model(project.settings, "fraud", "challenger")
    artifact = load_artifact(found.model_dir)

    assert (found.version, found.digest) == (1, trained.digest)
    assert found.contract == contract == artifact.contract
    given = feature_matrix(contract, split(project, "test"))
    assert np.array_equal(artifact.estimator.predict_proba(given), by_hand.predict_proba(given))
    assert artifact.digest == trained.digest


def test_the_metrics_are_those_of_the_test_rows(project: Project, trained: Trained) -> None:
    test = split(project, "test")
    scores = load_artifact(trained.model_dir).estimator.predict_proba(
        feature_matrix(project.training_set.contract, test)
    )[:, 1]
    labels = test["tx_fraud"].to_numpy()

    found = trained.evaluation
    assert found.performance.metrics.average_precision == pytest.approx(average_precision_score(labels, scores))
    assert found.performance.metrics.auc == pytest.approx(roc_auc_score(labels, scores))
    assert found.performance.no_skill == 17 / 48
    assert (found.training_set.train.rows, found.performance.rows, found.performance.positives) == (72, 48, 17)
    assert found.performance.metrics.auc > 0.9, "large payments are fraud, and the amount is a feature"


def test_mlflow_shows_the_numbers_of_the_evaluation(project: Project, trained: Trained) -> None:
    found = registry.require_model(project.settings, "fraud", str(trained.version))

    assert found.metrics == summary(trained.evaluation)
    assert found.metrics["average_precision"] == trained.evaluation.performance.average_precision.value


def test_the_matrix_has_the_contracts_order_and_nan_for_null(project: Project) -> None:
    rows = split(project, "test")
    found = feature_matrix(project.training_set.contract, rows)

    assert (found.dtype, found.shape) == (np.float64, (48, 15))
    for column, feature in enumerate(project.training_set.contract.features):
        expected = [np.nan if value is None else value for value in rows[feature.name].to_pylist()]
        np.testing.assert_array_equal(found[:, column], expected)
    assert np.isnan(found[:, 14]).any(), "terminal 5 has no risk"


def test_an_integer_that_float64_cannot_hold_is_an_error(project: Project) -> None:
    rows = split(project, "test")
    place = rows.column_names.index("nb_tx_30d")
    with pytest.raises(pa.ArrowInvalid, match="9007199254740993 not in range"):
        feature_matrix(
            project.training_set.contract, rows.set_column(place, "nb_tx_30d", pa.array([2**53 + 1] * rows.num_rows))
        )


def test_what_is_known_about_a_version_is_in_its_tags(project: Project, trained: Trained) -> None:
    tags = dict(registry.require_model(project.settings, "fraud", "challenger").tags)

    assert tags == {
        "lockstep.evaluation": trained.evaluation.hash,
        "feast.feature_service": "fraud_v1",
        "lockstep.contract": project.training_set.contract.hash,
        "lockstep.digest": trained.digest,
        "lockstep.parity": "pending",
        "lockstep.training_set": project.training_set.table,
    }
    assert trained.contract_hash == project.training_set.contract.hash


def test_the_run_names_every_table_with_its_snapshot(project: Project, trained: Trained) -> None:
    client = registry.open_client(project.settings)
    run = client.get_run(client.get_model_version("fraud", str(trained.version)).run_id)

    logged = {
        (tags["mlflow.data.context"], tags["iceberg.table"], tags["iceberg.snapshot_id"])
        for tags in ({tag.key: tag.value for tag in given.tags} for given in run.inputs.dataset_inputs)
    }
    cut = {("source", c.table, str(c.snapshot_id)) for c in project.training_set.contract.cut.tables}
    own = project.lake.snapshots(project.training_set.table)[0].id
    assert logged == cut | {("training", project.training_set.table, str(own))}
    assert client.get_experiment(run.info.experiment_id).name == "fraud"


def test_the_folder_is_below_home_and_describes_itself(project: Project, trained: Trained) -> None:
    assert trained.model_dir.is_relative_to(project.settings.home / "mlartifacts")
    assert trained.model_uri == trained.model_dir.as_uri()
    described = yaml.safe_load((trained.model_dir / "MLmodel").read_text())
    assert described["metadata"]["lockstep"]["trusted_types"] == list(project.use_case.model.trusted_types)
    assert described["flavors"]["sklearn"]["serialization_format"] == "skops"
    inputs = yaml.safe_load(described["signature"]["inputs"])
    assert [(i["name"], i["type"], i["required"]) for i in inputs] == [
        (f.name, "double", True) for f in project.training_set.contract.features
    ]
    requirements = (trained.model_dir / "requirements.txt").read_text().split()
    assert [line.split("==")[0] for line in requirements] == ["mlflow", "numpy", "scikit-learn", "scipy", "skops"]


def test_mlflow_says_nothing_not_even_when_its_store_is_made(
    project: Project, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fresh = project.settings.model_copy(update={"tracking_url": f"sqlite:///{project.settings.home}/fresh.db"})

    train_whole(fresh, project.use_case, project.training_set.table)
    registry.require_model(fresh, "fraud", "challenger")

    assert capfd.readouterr() == ("", "")
    assert [r.name for r in caplog.records if not r.name.startswith("lockstep.")] == []


def test_training_again_returns_the_version_there_is(project: Project, trained: Trained) -> None:
    again = train_whole(project.settings, project.use_case, project.training_set.table)

    assert (again.version, again.model, again.digest) == (trained.version, trained.model, trained.digest)
    assert again.evaluation.performance == trained.evaluation.performance
    assert project.versions() == [1]


def test_another_estimator_on_the_same_set_is_another_version_and_the_new_challenger(
    project: Project, trained: Trained
) -> None:
    settings, table = project.settings, project.training_set.table
    smaller = project.with_model(estimator=lambda: HistGradientBoostingClassifier(max_iter=5, random_state=0))

    second = train_whole(settings, smaller, table)

    assert (second.version, registry.require_model(settings, "fraud", "challenger").version) == (2, 2)
    assert second.digest != trained.digest
    assert second.contract_hash == trained.contract_hash
    assert train_whole(settings, project.use_case, table).version == 1
    assert registry.require_model(settings, "fraud", "challenger").version == 2, "a rerun does not move the alias back"


def test_a_challenger_whose_alias_was_lost_gets_it_back(project: Project, trained: Trained) -> None:
    """A run that died between registering and the alias is finished by its rerun."""
    settings = project.settings
    client = registry.open_client(settings)
    client.delete_registered_model_alias("fraud", "challenger")

    train_whole(settings, project.use_case, project.training_set.table)

    assert registry.require_model(settings, "fraud", "challenger").version == trained.version


def test_a_champion_that_is_replaced_becomes_the_previous_one(project: Project, trained: Trained) -> None:
    settings = project.settings
    second = train_whole(
        settings,
        project.with_model(estimator=lambda: HistGradientBoostingClassifier(max_iter=6, random_state=0)),
        project.training_set.table,
    )
    assert registry.find_model(settings, "fraud", "champion") is None

    registry.set_alias(settings, "fraud", "champion", trained.version, {"lockstep.parity": "passed"})
    assert registry.find_model(settings, "fraud", "champion").tags["lockstep.parity"] == "passed"
    assert registry.find_model(settings, "fraud", "previous") is None

    for _ in range(2):
        registry.set_alias(settings, "fraud", "champion", second.version)
        assert registry.find_model(settings, "fraud", "champion").version == second.version
        assert registry.find_model(settings, "fraud", "previous").version == trained.version


def test_a_model_or_version_that_is_not_there_is_said(project: Project, trained: Trained) -> None:
    settings = project.settings
    with pytest.raises(BadInput, match="model 'frodd' has no challenger"):
        registry.require_model(settings, "frodd", "challenger")
    with pytest.raises(BadInput, match="model 'fraud' has no version 99"):
        registry.set_alias(settings, "fraud", "champion", 99)


def test_a_folder_somebody_changed_is_refused(project: Project) -> None:
    changed = project.with_model(estimator=lambda: HistGradientBoostingClassifier(max_iter=7, random_state=0))
    done = train_whole(project.settings, changed, project.training_set.table)
    registry.set_alias(project.settings, "fraud", "tampered", done.version)
    described = (done.model_dir / "MLmodel").read_text()
    (done.model_dir / "MLmodel").write_text(described.replace("owner: fraud-ml", "owner: somebody"))

    with pytest.raises(Terminal, match=f"fraud version {done.version} is not what was registered"):
        registry.find_model(project.settings, "fraud", "tampered")


def test_a_version_of_an_earlier_contract_is_named_and_left_out_of_what_is_in_use(
    project: Project, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    settings = project.settings
    changed = project.with_model(estimator=lambda: HistGradientBoostingClassifier(max_iter=8, random_state=0))
    old = train_whole(settings, changed, project.training_set.table)
    registry.set_alias(settings, "fraud", "old", old.version)
    described = yaml.safe_load((old.model_dir / "MLmodel").read_text())
    described["metadata"]["lockstep"]["contract"]["version"] = 1
    (old.model_dir / "MLmodel").write_text(yaml.safe_dump(described))
    registry.set_alias(settings, "fraud", "readable", trained.version)

    found = registry.models_in_use(settings, "fraud")

    assert project.training_set.contract in found.values()
    assert [name for name in found if name.startswith(f"fraud {old.version} ")] == []
    said = "this is a feature contract of version 1; this release reads 2"
    assert [r.message for r in caplog.records if r.name == registry.__name__] == [
        f"fraud {old.version} (challenger, old) is left out: {said}"
    ]
    with pytest.raises(BadInput, match=rf"^fraud {old.version} \(challenger, old\): {said}\n\nHint: train the model"):
        registry.models_in_use(settings, "fraud", every=True)
    with pytest.raises(BadInput, match=f"^fraud version {old.version}: {said}\n\nHint: train the model again"):
        registry.require_model(settings, "fraud", "old")


def test_a_model_that_is_elsewhere_is_not_supported_yet() -> None:
    with pytest.raises(NotYetSupported, match="the model s3://bucket/model is not on a local disk"):
        registry.local_folder("s3://bucket/model")


class TakesTwo(LogisticRegression):
    """Looks at two features of the fifteen."""

    def fit(self, given: np.ndarray, labels: np.ndarray) -> "TakesTwo":
        return super().fit(given[:, :2], labels)


class Names(HistGradientBoostingClassifier):
    """Gives the features names of its own."""

    def fit(self, given: np.ndarray, labels: np.ndarray) -> "Names":
        super().fit(given, labels)
        self.feature_names_in_ = np.array([f"x{i}" for i in range(given.shape[1])])
        return self


@pytest.mark.parametrize(
    ("estimator", "trusted", "message"),
    [
        (TakesTwo, (), "the estimator of model 'fraud' takes 2 features of 15"),
        (Names, (), "the estimator of model 'fraud' names its features itself"),
        (
            HistGradientBoostingClassifier,
            (),
            (
                "the estimator of model 'fraud' holds types that are not trusted: "
                "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
            ),
        ),
    ],
)
def test_an_estimator_that_cannot_be_served_is_never_registered(
    project: Project, trained: Trained, estimator: Callable[[], Any], trusted: tuple[str, ...], message: str
) -> None:
    before = project.versions()

    with pytest.raises(UseCaseError) as failure:
        train(
            project.settings,
            project.with_model(estimator=estimator, trusted_types=trusted),
            project.training_set.table,
        )

    assert str(failure.value).splitlines()[0] == message
    assert project.versions() == before


def not_there() -> Any:
    raise ImportError("No module named 'boosting'")


class Mute(HistGradientBoostingClassifier):
    """Fits, and fails at the first row it is to score."""

    def predict_proba(self, given: np.ndarray) -> np.ndarray:
        raise RuntimeError("no device\nand a page of details")


NULLS = (
    "\n\nHint: a feature without a value reaches it as NaN, unless the service's policy says default(...) or reject()"
)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (not_there, "cannot be made: ImportError: No module named 'boosting'"),
        (object, "cannot be made: AttributeError: 'object' object has no attribute 'get_params'"),
        (LogisticRegression, f"fails to fit: ValueError: Input X contains NaN.{NULLS}"),
        (
            lambda: HistGradientBoostingClassifier(max_iter=-1),
            "fails to fit: InvalidParameterError: The 'max_iter' parameter of HistGradientBoostingClassifier must be",
        ),
        (lambda: Mute(max_iter=2), f"fails to score: RuntimeError: no device{NULLS}"),
    ],
    ids=["not there", "no estimator", "nulls", "parameters", "scores"],
)
def test_a_mistake_in_the_estimator_is_the_use_case_s_and_no_reason_to_try_again(
    project: Project, estimator: Callable[[], Any], message: str
) -> None:
    trusted = (*project.use_case.model.trusted_types, f"{__name__}.Mute")

    with pytest.raises(UseCaseError) as failure:
        train(
            project.settings,
            project.with_model(estimator=estimator, trusted_types=trusted),
            project.training_set.table,
        )

    assert str(failure.value).startswith(f"the estimator of model 'fraud' {message}")
    assert failure.value.__cause__ is not None


def test_an_estimator_without_probabilities_is_never_registered(project: Project, trained: Trained) -> None:
    class Margins(LinearSVC):
        def fit(self, given: np.ndarray, labels: np.ndarray) -> "Margins":
            return super().fit(np.nan_to_num(given), labels)

    with pytest.raises(UseCaseError, match="the estimator of model 'fraud' has no predict_proba"):
        train(project.settings, project.with_model(estimator=Margins), project.training_set.table)


def test_a_training_set_of_other_definitions_is_refused(project: Project, trained: Trained) -> None:
    view = replace(project.use_case.view("terminal_risk"), ttl=project.use_case.view("customer_spend").ttl)
    features = tuple((view if v.name == view.name else v, f) for v, f in project.use_case.model.service.features)
    service = replace(project.use_case.model.service, features=features)
    edited = replace(project.use_case, services=(service,), model=replace(project.use_case.model, service=service))

    with pytest.raises(BadInput, match=r"was built from other definitions than today's: views changed"):
        train(project.settings, edited, project.training_set.table)


def test_a_training_set_of_another_project_is_refused(project: Project) -> None:
    other = replace(project.use_case, project="other")
    lake = Lake.open(project.settings, "other")
    rows, contract = read_training_set(project.lake, project.training_set.table)
    lake.ensure_table("copied", rows.schema)
    lake.append("copied", rows, {"lockstep.contract": contract.to_json().decode()})

    with pytest.raises(BadInput, match="copied belongs to the project 'fraud', not 'other'"):
        train(project.settings, other, "copied")


def test_nothing_is_reported_to_mlflows_makers() -> None:
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert is_telemetry_disabled()


def test_no_run_is_left_open(trained: Trained) -> None:
    assert mlflow.active_run() is None

import zipfile
from pathlib import Path

import fraud_case
import numpy as np
import pytest
import yaml
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lockstep.errors import BadInput, Refused, SchemaDrift
from lockstep.serving.artifact import load_artifact, load_contract, model_digest

ROWS = np.random.default_rng(fraud_case.SEED).normal(size=(60, 5))
LABELS = (ROWS[:, 0] > 0).astype(int)


def write(folder: Path, estimator: object, **options: str) -> Path:
    return fraud_case.write_model(folder, fraud_case.contract(), estimator, **options)


@pytest.mark.parametrize(
    "estimator",
    [
        fraud_case.fitted(),
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(ROWS, LABELS),
        RandomForestClassifier(3, random_state=fraud_case.SEED).fit(ROWS, LABELS),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_tree_and_linear_classifiers_load_and_score_as_they_were_fitted(tmp_path: Path, estimator: object) -> None:
    artifact = load_artifact(write(tmp_path, estimator))

    assert artifact.contract == fraud_case.contract()
    np.testing.assert_array_equal(artifact.estimator.predict_proba(ROWS), estimator.predict_proba(ROWS))


def test_a_type_outside_the_allow_list_is_refused_even_if_the_artifact_trusts_it(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(ROWS, LABELS)
    estimator.hidden = fraud_case.enrich
    folder = write(tmp_path, estimator)
    description = yaml.safe_load((folder / "MLmodel").read_text())
    description["metadata"]["lockstep"]["trusted_types"] = ["fraud_case.enrich"]
    (folder / "MLmodel").write_text(yaml.safe_dump(description))

    with pytest.raises(Refused, match=r"holds types that are not trusted: fraud_case\.enrich"):
        load_artifact(folder)


def test_another_release_of_scikit_learn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaDrift, match=r"fitted with scikit-learn 1\.5\.2, here is"):
        load_artifact(write(tmp_path, fraud_case.fitted(), sklearn_version="1.5.2"))


def test_an_estimator_of_another_width_or_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaDrift, match="fitted on 4 features, the contract lists 5"):
        load_artifact(write(tmp_path / "narrow", fraud_case.fitted(4)))
    with pytest.raises(SchemaDrift, match="no classifier of 0 and 1"):
        load_artifact(write(tmp_path / "regression", Ridge().fit(ROWS, LABELS)))


def test_a_folder_without_a_model_or_contract_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no model directory: it has no MLmodel"):
        load_artifact(tmp_path)
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    with pytest.raises(BadInput, match=r"has no metadata\.lockstep\.contract"):
        load_contract(tmp_path)
    folder = write(tmp_path / "cut", fraud_case.fitted())
    (folder / "model.skops").write_bytes(b"PK")
    with pytest.raises(BadInput, match="is no skops file"):
        load_artifact(folder)


def test_the_digest_names_contract_and_content_and_not_the_archive(tmp_path: Path) -> None:
    folder = write(tmp_path, fraud_case.fitted())
    first = model_digest(folder)
    path = folder / "model.skops"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members, reverse=True):
            archive.writestr(name, members[name])
    assert model_digest(folder) == first

    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more", b"")
    assert model_digest(folder) != first
    other = fraud_case.contract(feature_service="fraud_v2")
    assert model_digest(fraud_case.write_model(tmp_path / "other", other, fraud_case.fitted())) != first

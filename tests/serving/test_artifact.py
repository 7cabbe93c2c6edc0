import subprocess
import sys
import zipfile
from pathlib import Path

import fraud_case
import numpy as np
import pytest
import sklearn
import skops.io
import yaml
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lockstep.errors import BadInput, Refused, SchemaDrift
from lockstep.serving.artifact import estimator_digest, load_artifact, load_contract, model_digest

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
    assert artifact.fallback is None


def with_fallback(folder: Path) -> Path:
    whole = fraud_case.contract()
    smaller = fraud_case.contract(features=whole.features[1:])
    return fraud_case.write_model(folder, fraud_case.contract(fallback=smaller), fraud_case.fitted())


def test_a_fallback_model_lies_beside_the_model_and_is_held_against_its_own_contract(tmp_path: Path) -> None:
    artifact = load_artifact(with_fallback(tmp_path))

    assert artifact.contract.fallback == fraud_case.contract(features=fraud_case.contract().features[1:])
    np.testing.assert_array_equal(
        artifact.fallback.predict_proba(ROWS[:, 1:]), fraud_case.fitted(4).predict_proba(ROWS[:, 1:])
    )
    skops.io.dump(fraud_case.fitted(5), tmp_path / "extra_files" / "fallback.skops")
    with pytest.raises(SchemaDrift, match=r"fallback\.skops: fitted on 5 features, the contract lists 4"):
        load_artifact(tmp_path)
    (tmp_path / "extra_files" / "fallback.skops").unlink()
    with pytest.raises(BadInput, match=r"it has no extra_files/fallback\.skops"):
        load_artifact(tmp_path)


def test_the_digest_names_the_fallback_model_too(tmp_path: Path) -> None:
    before = model_digest(with_fallback(tmp_path))
    skops.io.dump(fraud_case.fitted(3), tmp_path / "extra_files" / "fallback.skops")

    assert model_digest(tmp_path) != before


SAVE = """
import sys, skops.io
sys.path.insert(0, sys.argv[1])
import fraud_case
skops.io.dump(fraud_case.fitted(), sys.argv[2])
"""


def test_equal_fits_have_equal_digests_whichever_process_saved_them(tmp_path: Path) -> None:
    """skops calls things by their address in memory: the files differ, what they say does not."""
    paths = [tmp_path / f"{n}.skops" for n in range(2)]
    skops.io.dump(fraud_case.fitted(), paths[0])
    where = str(Path(fraud_case.__file__).parent)
    subprocess.run([sys.executable, "-c", SAVE, where, str(paths[1])], check=True)

    trees = [zipfile.ZipFile(path).read("schema.json") for path in paths]
    assert trees[0] != trees[1]
    assert estimator_digest(paths[0]) == estimator_digest(paths[1])


def test_the_digest_sees_every_number_and_every_file_in_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(fraud_case.fitted(), path)
    held = estimator_digest(path)
    members = {name: zipfile.ZipFile(path).read(name) for name in zipfile.ZipFile(path).namelist()}
    array = next(name for name in members if name.endswith(".npy"))
    other = members[array][:-1] + bytes([members[array][-1] ^ 1])
    tree = members["schema.json"].replace(b'"log_loss', b'"lag_loss')

    for changed in (
        {array: other},
        {"schema.json": tree},
        {"unmentioned.npy": b"x"},
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (members | changed).items():
                archive.writestr(name, content)
        assert estimator_digest(path) != held, changed.keys()


def test_a_member_that_is_called_file_is_one_like_any_other(tmp_path: Path) -> None:
    members = [("file", LogisticRegression()), ("other", LogisticRegression())]
    voting, again = tmp_path / "voting.skops", tmp_path / "again.skops"
    skops.io.dump(VotingClassifier(members).fit(ROWS, LABELS), voting)
    skops.io.dump(VotingClassifier(members).fit(ROWS, LABELS), again)

    assert estimator_digest(voting) == estimator_digest(again)
    skops.io.dump(VotingClassifier(members).fit(ROWS, 1 - LABELS), again)
    assert estimator_digest(voting) != estimator_digest(again)


def test_the_digest_names_the_release_that_decides_whether_a_model_is_loaded(tmp_path: Path) -> None:
    held = model_digest(write(tmp_path, fraud_case.fitted()))
    described = (tmp_path / "MLmodel").read_text()
    (tmp_path / "MLmodel").write_text(described.replace(sklearn.__version__, "0.1"))

    assert model_digest(tmp_path) != held


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

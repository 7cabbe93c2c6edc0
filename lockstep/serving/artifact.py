"""A model directory: MLflow's LoggedModel folder, opened without MLflow.

`MLmodel` (YAML) carries the feature contract in its metadata, `model.skops` holds the fitted estimator, and
`extra_files/fallback.skops` that of the fallback model, if the contract has one. The artifact's own list of trusted types is a
note for people, never a boundary: whoever can write the artifact can write the list.
"""

import hashlib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import orjson
import yaml

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, Refused, SchemaDrift
from lockstep.hashing import digest

METADATA_KEY = "lockstep"
CONTRACT_KEY = "contract"
TRUSTED_TYPES_KEY = "trusted_types"
DESCRIPTION_FILE = "MLmodel"
_TREE = "schema.json"  # of a skops file
ESTIMATOR_FILE = "model.skops"
FALLBACK_FILE = "extra_files/fallback.skops"  # where MLflow puts what is logged with a model

# What scikit-learn's tree and linear classifiers need besides skops' own defaults. Each of them holds arrays and runs no code
# when it is loaded. (Node numbers of a forged tree may still point outside its arrays: an artifact store needs access control.)
TRUSTED_TYPES = frozenset(
    {
        "numpy.dtype",  # SimpleImputer, SGDClassifier
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",  # HistGradientBoosting
        "sklearn.tree._tree.Tree",  # decision trees, random forests, gradient boosting
    }
)


@dataclass(frozen=True)
class ModelArtifact:
    """A loaded model.

    Attributes:
        contract: what it was trained on.
        estimator: the fitted scikit-learn classifier.
        digest: see `model_digest`.
        fallback: that of the fallback model, whose contract is the contract's own `fallback`.
    """

    contract: FeatureContract
    estimator: Any
    digest: str
    fallback: Any = None


def contract_metadata(contract: FeatureContract, trusted_types: Iterable[str] = ()) -> dict[str, Any]:
    """Return what training puts into the metadata of `MLmodel`."""
    document = orjson.loads(contract.to_json())
    return {METADATA_KEY: {CONTRACT_KEY: document, TRUSTED_TYPES_KEY: sorted(trusted_types)}}


def load_artifact(model_dir: Path) -> ModelArtifact:
    """Open a model directory.

    Raises:
        BadInput: a file or the contract is missing or unreadable.
        Refused: an estimator holds types outside `TRUSTED_TYPES`.
        SchemaDrift: it was fitted with another release of scikit-learn, or is no two-class classifier of the contract's features.
    """
    description = _describe(model_dir)
    contract = _contract(model_dir, description)
    _require_release(model_dir, description)
    estimator = _load(_file(model_dir, ESTIMATOR_FILE), contract)
    fallback = _load(_file(model_dir, FALLBACK_FILE), contract.fallback) if contract.fallback else None
    return ModelArtifact(contract, estimator, model_digest(model_dir), fallback)


def _load(path: Path, contract: FeatureContract) -> Any:
    # The transformer reads contracts and digests only: scikit-learn would cost it 2.6 s of CPU and 90 MiB (measured).
    import skops.io  # noqa: PLC0415

    try:
        unknown = set(skops.io.get_untrusted_types(file=path))
    except (zipfile.BadZipFile, KeyError, ValueError) as broken:
        raise BadInput(f"{path} is no skops file: {broken}") from broken
    if not unknown <= TRUSTED_TYPES:
        raise Refused(
            f"{path} holds types that are not trusted: {', '.join(sorted(unknown - TRUSTED_TYPES))}",
            hint="after a review, add them to TRUSTED_TYPES in lockstep/serving/artifact.py",
        )
    estimator = skops.io.load(path, trusted=sorted(unknown))
    _require_classifier(path, estimator, contract)
    return estimator


def load_contract(model_dir: Path) -> FeatureContract:
    """Read only the contract of a model directory.

    Raises:
        BadInput: `MLmodel` is missing or carries no contract.
    """
    return _contract(model_dir, _describe(model_dir))


def model_digest(model_dir: Path) -> str:
    """Return the SHA-256 over the contract's hash, the release of scikit-learn, and the content of the estimators' files.

    The release is the one that `load_artifact` goes by: what an estimator's numbers mean depends on it. Two fits that are equal
    have equal digests, in whichever process and whenever they were saved: see `estimator_digest`.

    Raises:
        BadInput: a file or the contract is missing or unreadable.
    """
    description = _describe(model_dir)
    contract = _contract(model_dir, description)
    estimators = [estimator_digest(_file(model_dir, ESTIMATOR_FILE))]
    if contract.fallback:
        estimators.append(estimator_digest(_file(model_dir, FALLBACK_FILE)))
    return digest([contract.hash, _release(description), *estimators])


def estimator_digest(path: Path | IO[bytes]) -> str:
    """Return the SHA-256 of what a skops file says, whatever it calls things.

    skops names each node of its tree, and each file beside it, by an address in the memory of the process that saved it. Here a
    node's name is its place in the tree, and a file's the hash of what it holds; a number or text has no name: whether two that
    are equal are one object is the interpreter's affair. The archive's own order, times and compression do not matter either; a
    file that the tree does not mention does.

    Raises:
        BadInput: it is no skops file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            held = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
            tree = orjson.loads(archive.read(_TREE))
    except (zipfile.BadZipFile, KeyError, orjson.JSONDecodeError) as broken:
        raise BadInput(f"{path} is no skops file: {broken}") from broken
    places: dict[int, int] = {}
    mentioned = {_TREE}

    def named_anew(node: Any) -> Any:
        if isinstance(node, list):
            return [named_anew(each) for each in node]
        if not isinstance(node, dict):
            return node
        told: dict[str, Any] = {}
        for key, value in node.items():
            if key == "__id__" and isinstance(value, int):
                if node.get("__loader__") != "JsonNode":
                    told[key] = places.setdefault(value, len(places))
            elif key == "file" and isinstance(value, str) and value in held:
                mentioned.add(value)
                told[key] = held[value]
            else:
                told[key] = named_anew(value)
        return told

    said = named_anew(tree)
    return digest([said, sorted([name, held[name]] for name in held.keys() - mentioned)])


def modules_named(path: Path | IO[bytes]) -> set[str]:
    """Return the modules of the classes and functions that a skops file names."""
    with zipfile.ZipFile(path) as archive:
        todo: list[Any] = [orjson.loads(archive.read(_TREE))]
    found: set[str] = set()
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            if isinstance(module := node.get("__module__"), str):
                found.add(module)
            todo.extend(node.values())
        elif isinstance(node, list):
            todo.extend(node)
    return found


def _file(model_dir: Path, name: str) -> Path:
    path = model_dir / name
    if not path.is_file():
        raise BadInput(
            f"{model_dir} is no model directory: it has no {name}", hint="give the folder that MLmodel is in"
        )
    return path


def _describe(model_dir: Path) -> dict[str, Any]:
    path = _file(model_dir, DESCRIPTION_FILE)
    try:
        description = yaml.load(
            path.read_text(), Loader=yaml.CSafeLoader
        )  # every step that names a model comes by here
    except yaml.YAMLError as broken:
        raise BadInput(f"{path} is no YAML: {broken}") from broken
    if not isinstance(description, dict):
        raise BadInput(f"{path} describes no model")
    return description


def _contract(model_dir: Path, description: dict[str, Any]) -> FeatureContract:
    metadata = description.get("metadata")
    ours = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(ours, dict) or CONTRACT_KEY not in ours:
        raise BadInput(
            f"{model_dir / DESCRIPTION_FILE} has no metadata.{METADATA_KEY}.{CONTRACT_KEY}",
            hint="the model was not logged by lockstep's training step",
        )
    return FeatureContract.from_json(orjson.dumps(ours[CONTRACT_KEY]))


def _require_release(model_dir: Path, description: dict[str, Any]) -> None:
    """A fitted estimator means the same only under the minor release it was fitted with (scikit-learn: model persistence)."""
    fitted = _release(description)
    here = version("scikit-learn")
    if _minor(fitted) != _minor(here):
        raise SchemaDrift(
            f"{model_dir}: fitted with scikit-learn {fitted or 'of an unknown release'}, here is {here}",
            hint="serve it with the image it was trained with, or train it again",
        )


def _release(description: dict[str, Any]) -> str:
    """Return the release of scikit-learn that the estimators were fitted with; "" where it is not said."""
    flavor = (description.get("flavors") or {}).get("sklearn") or {}
    return str(flavor.get("sklearn_version", ""))


def _minor(release: str) -> list[str]:
    return release.split(".")[:2]


def _require_classifier(path: Path, estimator: Any, contract: FeatureContract) -> None:
    width = getattr(estimator, "n_features_in_", None)
    if width != len(contract.features):
        raise SchemaDrift(f"{path}: fitted on {width} features, the contract lists {len(contract.features)}")
    classes = getattr(estimator, "classes_", None)
    if classes is None or list(classes) != [0, 1]:
        raise SchemaDrift(f"{path}: the estimator is no classifier of 0 and 1: its classes are {classes}")

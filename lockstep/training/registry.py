"""The model registry: which version is the challenger, which the champion.

https://mlflow.org/docs/latest/ml/model-registry/
"""

import logging
import warnings
from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, NotYetSupported, Terminal
from lockstep.serving.artifact import load_contract, model_digest
from lockstep.settings import Settings

CHALLENGER = "challenger"
CHAMPION = "champion"
PREVIOUS = "previous"
# Feast's own UI and `resolve_features` look for this one.
SERVICE_TAG = "feast.feature_service"
CONTRACT_TAG = "lockstep.contract"
DIGEST_TAG = "lockstep.digest"
EVALUATION_TAG = "lockstep.evaluation"
PARITY_TAG = "lockstep.parity"
PENDING = "pending"
REPORT_TAG = "lockstep.parity-report"
FALLBACK_REPORT_TAG = "lockstep.fallback-parity-report"

# What MLflow answers when a model, version or alias is not there.
_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


@dataclass(frozen=True)
class Registered:
    """A version of a registered model.

    Attributes:
        metrics: how it did on the held-out days.
        model_dir: its folder, with `MLmodel` in it.
        digest: of the folder, as it is now and as it was when it was registered.
        contract: what it was trained on.
        tags: what is known about it, such as its parity.
    """

    version: int
    model_dir: Path
    digest: str
    contract: FeatureContract
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


def require_model(settings: Settings, name: str, which: str) -> Registered:
    """Return the version of that number, or the one that carries the alias `which`.

    Raises:
        BadInput: there is none, or this release cannot read it.
        Terminal: its folder is not what was registered.
        NotYetSupported: its folder is not on a local disk.
    """
    found = find_model(settings, name, which)
    if found is None:
        wanted = f"version {which}" if which.isdecimal() else which
        raise BadInput(f"model {name!r} has no {wanted}", hint="train one first")
    return found


def find_model(settings: Settings, name: str, which: str) -> Registered | None:
    """Return the version of that number, or the one that carries the alias `which`; None if there is none.

    Raises:
        BadInput: this release cannot read it.
        Terminal: its folder is not what was registered.
        NotYetSupported: its folder is not on a local disk.
    """
    with quiet():
        client = open_client(settings)
        version = _numbered(client, name, which) if which.isdecimal() else aliased(client, name, which)
        if version is None:
            return None
        folder = local_folder(client.get_model_version_download_uri(name, version.version))
        metrics = client.get_run(version.run_id).data.metrics if version.run_id else {}
    try:
        digest, contract = model_digest(folder), load_contract(folder)
    except BadInput as unreadable:
        raise BadInput(f"{name} version {version.version}: {unreadable.args[0]}", hint=unreadable.hint) from unreadable
    tags = dict(version.tags)
    if digest != tags.get(DIGEST_TAG):
        raise Terminal(
            f"{name} version {version.version} is not what was registered: its folder has digest {digest}, "
            f"the registry says {tags.get(DIGEST_TAG)}",
            hint=f"somebody changed {folder}; train again",
        )
    return Registered(int(version.version), folder, digest, contract, tags, metrics)


def models_in_use(settings: Settings, name: str, *, every: bool = False) -> dict[str, FeatureContract]:
    """Return the contracts of the versions that carry an alias, by what to call them: `fraud 2 (champion, challenger)`.

    A version whose contract this release cannot read is left out, and a warning names it: an image of another release may
    serve it all the same.

    Args:
        settings: name the tracking store.
        name: the registered model.
        every: refuse instead: for a caller that would take away what such a version reads.

    Raises:
        BadInput: a contract cannot be read, and every one was asked for.
        NotYetSupported: a folder is not on a local disk.
    """
    embedded = settings.tracking_url.removeprefix("sqlite:///")
    if embedded != settings.tracking_url and not Path(embedded).exists():
        return {}  # asking MLflow would make the store, which takes seconds
    found: dict[str, FeatureContract] = {}
    with quiet():
        client = open_client(settings)
        if not client.search_registered_models(f"name = '{name}'"):
            return {}
        aliases: defaultdict[str, list[str]] = defaultdict(list)
        for alias, version in sorted(client.get_registered_model(name).aliases.items()):
            aliases[str(version)].append(alias)
        for version in sorted(aliases, key=int):
            folder = local_folder(client.get_model_version_download_uri(name, version))
            called = f"{name} {version} ({', '.join(aliases[version])})"
            try:
                found[called] = load_contract(folder)
            except BadInput as unreadable:
                if every:
                    raise BadInput(f"{called}: {unreadable.args[0]}", hint=unreadable.hint) from unreadable
                logging.getLogger(__name__).warning("%s is left out: %s", called, unreadable.args[0])
    return found


def versions(settings: Settings, name: str, most: int = 20) -> dict[int, Path]:
    """Return the folders of the newest versions, by number, the newest first.

    Raises:
        NotYetSupported: a folder is not on a local disk.
    """
    with quiet():
        client = open_client(settings)
        found = client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"], max_results=most)
        return {
            int(version.version): local_folder(client.get_model_version_download_uri(name, version.version))
            for version in found
        }


def set_alias(settings: Settings, name: str, alias: str, version: int, tags: Mapping[str, str] | None = None) -> None:
    """Give a version the alias, its tags first and the alias last; a champion it replaces becomes `previous`.

    Raises:
        BadInput: there is no such version.
    """
    with quiet():
        client = open_client(settings)
        if _numbered(client, name, str(version)) is None:
            raise BadInput(f"model {name!r} has no version {version}")
        for key, value in (tags or {}).items():
            client.set_model_version_tag(name, str(version), key, value)
        if alias == CHAMPION:
            replaced = aliased(client, name, CHAMPION)
            if replaced is not None and int(replaced.version) != version:
                client.set_registered_model_alias(name, PREVIOUS, replaced.version)
        client.set_registered_model_alias(name, alias, str(version))


def open_client(settings: Settings) -> MlflowClient:
    """Return a client of the settings' tracking server; the embedded store is made when it is absent."""
    settings.home.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=settings.tracking_url, registry_uri=settings.tracking_url)


def local_folder(uri: str) -> Path:
    """Return the local folder that a model's URI names.

    Raises:
        NotYetSupported: it is elsewhere.
    """
    parsed = urlparse(uri)
    if parsed.scheme not in {"", "file"}:
        raise NotYetSupported(
            f"the model {uri} is not on a local disk", hint="this release keeps artifacts below home"
        )
    return Path(unquote(parsed.path))


@contextmanager
def quiet() -> Generator[None]:
    """Keep MLflow's progress, its migrations' log and its deprecation warnings off the caller's terminal.

    Failures come as exceptions and are not affected.
    """
    loggers = {name: logging.getLogger(name).level for name in ("mlflow", "alembic")}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in loggers.items():
            logging.getLogger(name).setLevel(level)


def _numbered(client: MlflowClient, name: str, version: str) -> ModelVersion | None:
    try:
        return client.get_model_version(name, version)
    except MlflowException as absent:
        if absent.error_code not in _ABSENT:
            raise
        return None


def aliased(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Return the version that carries the alias, if any."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as absent:
        if absent.error_code not in _ABSENT:
            raise
        return None

"""The services that are measured, each up in processes of its own, and the model that all of them serve."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import skops.io
import yaml
from numpy.typing import NDArray

from benchmarks._online import KEY, SERVICE, feast_store, make_contract
from benchmarks._serving.processes import feature_server, kserve_peer
from lockstep.local.serving import LocalService
from lockstep.serving.artifact import ESTIMATOR_FILE, contract_metadata
from lockstep.settings import Settings

CONTRACT = make_contract(
    {
        "amount_mean_7d": "float64",
        "amount_mean_30d": "float64",
        "amount_max_30d": "float64",
        "nb_tx_7d": "int64",
        "nb_tx_30d": "int64",
    }
)
OURS, SDK, FEATURES, ECHO = "ours", "feast SDK in KServe", "feast feature server", "KServe echo"
PREDICT_PATH = f"/v1/models/{SERVICE}:predict"

Body = Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class Pace:
    """How requests come: as many at once as there are connections, or so many a second."""

    connections: int
    rate: int | None = None

    def __str__(self) -> str:
        if self.rate:
            return f"open, {self.rate}/s"
        return f"{self.connections} connection{'s' if self.connections > 1 else ''}"


@dataclass(frozen=True)
class Target:
    """A service that is up.

    Attributes:
        case: what the table calls it.
        port: where it listens.
        path: what to post to.
        body: makes the request for an entity.
        pids: its processes, by role.
        paces: at which it is measured.
    """

    case: str
    port: int
    path: str
    body: Body
    pids: Mapping[str, int]
    paces: Sequence[Pace]


def write_model(folder: Path, estimator: Any) -> Path:
    """Write what MLflow's `log_model` writes, as far as serving reads it."""
    folder.mkdir(parents=True)
    description = {
        "flavors": {"sklearn": {"sklearn_version": sklearn.__version__}},
        "metadata": contract_metadata(CONTRACT),
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(description))
    skops.io.dump(estimator, folder / ESTIMATOR_FILE)
    return folder


def instance(entity: int) -> dict[str, Any]:
    """Return the request for a score; its time is the clock's."""
    return {"instances": [{KEY.name: entity, "request_time": datetime.now(UTC).isoformat()}]}


def columns_of(entity: int) -> dict[str, Any]:
    """Return the request for features alone."""
    return {"feature_service": SERVICE, "entities": {KEY.name: [entity]}}


@contextmanager
def targets(
    home: Path, settings: Settings, estimators: Mapping[str, Any], closed: Sequence[Pace], opened: Sequence[Pace]
) -> Generator[list[Target]]:
    """Serve it all: ours with each of the estimators, the peers with the first; only ours and its peer at the open paces."""
    folders = {case: write_model(home / case.replace(" ", "-"), fitted) for case, fitted in estimators.items()}
    repository = home / "feast"
    repository.mkdir()
    feast_store(repository, settings.redis_port, CONTRACT.views)
    with ExitStack() as stack:
        echo = stack.enter_context(kserve_peer("echo", SERVICE, home))
        features = stack.enter_context(feature_server(repository, home))
        predictor = stack.enter_context(
            kserve_peer("predictor", SERVICE, home, "--estimator", str(folders[OURS] / ESTIMATOR_FILE))
        )
        options = ["--predictor_host", f"127.0.0.1:{predictor.port}", "--home", str(repository)]
        transformer = stack.enter_context(
            kserve_peer("transformer", SERVICE, home, *options, "--service", SERVICE, "--key", KEY.name)
        )
        ours = {case: stack.enter_context(LocalService(settings, folder, SERVICE)) for case, folder in folders.items()}
        for peer in (echo, features, predictor, transformer):
            peer.wait()
        every, one = (*closed, *opened), closed[:1]
        sdk_pids = {"transformer": transformer.pid, "predictor": predictor.pid}
        yield [
            # Ours and the SDK peer are neighbours: the machine may be another one a moment later.
            target_of(OURS, ours[OURS], every),
            Target(SDK, transformer.port, PREDICT_PATH, instance, sdk_pids, every),
            Target(FEATURES, features.port, "/get-online-features", columns_of, {"server": features.pid}, closed),
            Target(ECHO, echo.port, PREDICT_PATH, instance, {"server": echo.pid}, closed),
            *(target_of(case, service, one) for case, service in ours.items() if case != OURS),
        ]


def target_of(case: str, service: LocalService, paces: Sequence[Pace]) -> Target:
    return Target(case, service.port, PREDICT_PATH, instance, service.pids, paces)


def vector_of(answer: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the vector of what Feast's server answers."""
    names, results = answer["metadata"]["feature_names"], answer["results"]
    values = {name: result["values"][0] for name, result in zip(names, results, strict=True)}
    return np.array([[values[feature.name] for feature in CONTRACT.features]], dtype=np.float64)

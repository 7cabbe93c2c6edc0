"""The predictor: the classifiers of a model directory, each as a KServe model. `python -m lockstep.serving.predictor --help`.

It serves the main model under its name, and the fallback as `<name>-fallback`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from kserve import Model
from numpy.typing import NDArray

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput
from lockstep.serving import tensors
from lockstep.serving.answering import fallback_name
from lockstep.serving.artifact import ModelArtifact, load_artifact
from lockstep.serving.edge import Asked, Speaks, parse_json
from lockstep.serving.scoring import scorer_of
from lockstep.serving.server import arguments, run, serve
from lockstep.settings import Settings
from lockstep.threads import one_thread

MOST_BYTES = 64 << 20  # a thousand rows of thousands of features
_NUMBERS = {int, float, type(None)}


class Predictor(Model):
    """Scores vectors with one estimator; null is NaN.

    scikit-learn runs on the event loop. A row takes 25 us and a thousand rows 4 ms (200 boosted trees of 15 leaves, one
    thread); a thread would add a hand-over to each call and, on the one CPU a predictor is given, save nothing but the wait of
    a readiness probe.

    Args:
        name: what it is served as.
        contract: lists the features.
        estimator: the fitted classifier.
        digest: of the model directory.
    """

    def __init__(self, name: str, contract: FeatureContract, estimator: Any, digest: str) -> None:
        super().__init__(name)
        self._contract = contract
        self._digest = digest
        self._scorer = scorer_of(estimator)
        self._status = {"name": name, "ready": True, "model": digest, "contract": contract.hash}
        self.ready = True

    def status(self) -> dict[str, Any]:
        """Say which model of which contract is served."""
        return self._status

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the probability of class 1 for each vector, and which model said so.

        Raises:
            BadInput: the body is not a list of vectors as long as the contract's.
        """
        asked: Asked = payload
        width = len(self._contract.features)
        document = parse_json(asked.body)
        if asked.speaks is Speaks.V1:
            scores = self._score(parse_vectors(document, width))
            return {"predictions": scores, "model": self._digest}
        scores = self._score(parse_tensor(document, width))
        named = tensors.request_id(document)
        answer = {"model_name": self.name, "parameters": {"model": self._digest}}
        return (
            answer | ({} if named is None else {"id": named}) | {"outputs": [tensors.output("score", "FP64", scores)]}
        )

    def _score(self, vectors: NDArray[np.float64]) -> list[float]:
        try:
            return self._scorer(vectors).tolist()
        except ValueError as wrong:  # many an estimator takes no NaN
            raise BadInput(f"the model does not take these vectors: {wrong}") from wrong

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the tensor of a request, for KServe's metadata endpoint."""
        return [{"name": "vectors", "datatype": "FP64", "shape": [-1, len(self._contract.features)]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the tensor of an answer."""
        return [{"name": "score", "datatype": "FP64", "shape": [-1]}]


def parse_vectors(payload: Any, width: int) -> NDArray[np.float64]:
    """Read `{"instances": [[number or null, ...], ...]}` as rows by `width`.

    Raises:
        BadInput: it is anything else.
    """
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list) or not instances:
        raise BadInput('the body must be {"instances": [[number or null, ...], ...]}')
    return _vectors(instances, width)


def parse_tensor(payload: object, width: int) -> NDArray[np.float64]:
    """Read the one FP64 tensor `vectors` as rows by `width`; its data may hold nulls.

    Raises:
        BadInput: it is anything else.
    """
    given = tensors.input_tensors(payload)
    if given.keys() != {"vectors"}:
        raise BadInput(f"the inputs are {', '.join(sorted(given))}; it must be one tensor named 'vectors'")
    rows = tensors.matrix(given["vectors"], "FP64", width)
    if not rows:
        raise BadInput("the tensor 'vectors' has no row")
    return _vectors(rows, width)


def _vectors(rows: list[Any], width: int) -> NDArray[np.float64]:
    try:
        vectors = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as wrong:
        raise BadInput(f"the instances are no vectors of numbers: {wrong}") from None
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise BadInput(f"the instances have the shape {list(vectors.shape)}, the contract has {width} features")
    # To numpy the text "1" and true are numbers.
    if not {type(value) for row in rows for value in row} <= _NUMBERS:
        raise BadInput("the instances are no vectors of numbers: there are values of other types")
    return vectors


def predictors_of(artifact: ModelArtifact, name: str) -> list[Predictor]:
    """Return what serves the estimators of a model directory."""
    served = [Predictor(name, artifact.contract, artifact.estimator, artifact.digest)]
    if artifact.contract.fallback:
        fallback = artifact.contract.fallback
        served.append(Predictor(fallback_name(name), fallback, artifact.fallback, artifact.digest))
    return served


def main() -> None:
    """Serve the models of the folder that the arguments name."""
    given = arguments("Score feature vectors.").parse_args()
    served = predictors_of(load_artifact(Path(given.model_dir)), given.model_name)
    with one_thread():
        serve(served, given.http_host, given.http_port, Settings.load().request_budget, MOST_BYTES)


if __name__ == "__main__":
    run(main)

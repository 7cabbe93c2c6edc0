"""The predictor: one scikit-learn classifier behind KServe's v1 protocol. `python -m lockstep.serving.predictor --help`."""

from pathlib import Path
from typing import Any

import numpy as np
from kserve import Model
from numpy.typing import NDArray

from lockstep.errors import BadInput
from lockstep.serving.artifact import ModelArtifact, load_artifact
from lockstep.serving.server import arguments, serve


class Predictor(Model):
    """Scores vectors; null is NaN.

    scikit-learn runs on the event loop. A batch takes 0.8 ms for 1 to 50 rows and 2 ms for the 1000 that a transformer sends
    at most (200 boosted trees of 31 leaves, one thread); a thread would add a hand-over to each call and, on the one CPU a
    predictor is given, save nothing but the wait of a readiness probe.
    """

    def __init__(self, name: str, artifact: ModelArtifact) -> None:
        super().__init__(name)
        self._artifact = artifact
        self.ready = True

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the probability of class 1 for each instance, and which model said so.

        Raises:
            BadInput: the body is not a list of vectors as long as the contract's.
        """
        vectors = parse_vectors(payload, len(self._artifact.contract.features))
        scores = self._artifact.estimator.predict_proba(vectors)[:, 1]
        return {"predictions": scores.tolist(), "model": self._artifact.digest}


def parse_vectors(payload: Any, width: int) -> NDArray[np.float64]:
    """Read `{"instances": [[number or null, ...], ...]}` as rows by `width`.

    Raises:
        BadInput: it is anything else.
    """
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list) or not instances:
        raise BadInput('the body must be {"instances": [[number or null, ...], ...]}')
    try:
        vectors = np.array(instances, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as wrong:
        raise BadInput(f"the instances are no vectors of numbers: {wrong}") from None
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise BadInput(f"the instances have the shape {list(vectors.shape)}, the contract has {width} features")
    return vectors


def main() -> None:
    """Serve the model that the arguments name."""
    given = arguments("Score feature vectors.").parse_args()
    artifact = load_artifact(Path(given.model_dir))
    serve(Predictor(given.model_name, artifact), given.http_host, given.http_port)


if __name__ == "__main__":
    main()

"""The peer's predictor: a scikit-learn classifier that scores arrays behind KServe's v1 protocol."""

from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from kserve import Model

from benchmarks._serving.server import arguments, serve


class Predictor(Model):
    """Scores vectors with the estimator of a skops file."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name)
        self._estimator = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
        self.ready = True

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the probability of class 1 for each instance."""
        vectors = np.array(payload["instances"], dtype=np.float64)
        return {"predictions": self._estimator.predict_proba(vectors)[:, 1].tolist()}


def main() -> None:
    parser = arguments("Score feature vectors.")
    parser.add_argument("--estimator", type=Path, required=True)
    given = parser.parse_args()
    serve(Predictor(given.model_name, given.estimator))


if __name__ == "__main__":
    main()

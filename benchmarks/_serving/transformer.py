"""The peer's transformer: features by Feast's SDK, then KServe's own call of the predictor."""

from typing import Any

import feast
from kserve import Model

from benchmarks._serving.server import arguments, serve


class FeastTransformer(Model):
    """Looks up a feature service by the keys of its entities.

    Args:
        name: the model's name, here and at the predictor.
        home: the folder of `feature_store.yaml`.
        service: the feature service.
        keys: the join keys.
    """

    def __init__(self, name: str, home: str, service: str, keys: list[str]) -> None:
        super().__init__(name)
        self._store = feast.FeatureStore(home)
        self._service = self._store.get_feature_service(service)
        self._names = [feature.name for view in self._service.feature_view_projections for feature in view.features]
        self._keys = keys
        self.ready = True

    async def preprocess(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Return the vectors of the instances."""
        entities = [{key: row[key] for key in self._keys} for row in payload["instances"]]
        answer = await self._store.get_online_features_async(features=self._service, entity_rows=entities)
        found = answer.to_dict()
        return {"instances": [list(row) for row in zip(*(found[name] for name in self._names), strict=True)]}


def main() -> None:
    parser = arguments("Turn entity keys into scores.")
    parser.add_argument("--home", required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--key", action="append", required=True)
    given = parser.parse_args()
    serve(FeastTransformer(given.model_name, given.home, given.service, given.key))


if __name__ == "__main__":
    main()

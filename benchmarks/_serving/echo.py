"""The floor of one hop: a KServe model that always gives the same answer."""

from typing import Any

from kserve import Model

from benchmarks._serving.server import arguments, serve


class Echo(Model):
    """Answers without looking at the request."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Return one score."""
        return {"predictions": [0.5]}


if __name__ == "__main__":
    serve(Echo(arguments("Answer always the same.").parse_args().model_name))

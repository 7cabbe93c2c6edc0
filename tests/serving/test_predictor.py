"""The predictor behind the edge, in process, over both protocols: its scores, its two models, and what it refuses."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import fraud_case
import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI

from lockstep.serving.artifact import ModelArtifact, load_artifact, model_digest
from lockstep.serving.edge import Edge
from lockstep.serving.predictor import MOST_BYTES, parse_vectors, predictors_of

V1, V2 = "/v1/models/fraud:predict", "/v2/models/fraud/infer"
VECTORS = [[0.5, 3.0, None, 12.0, 0.1 + 0.2], [None, None, None, None, None], [1, -2, 3, 1e300, 5e-324]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("model")
    return fraud_case.write_model(home, fraud_case.with_fallback(), fraud_case.fitted())


@pytest.fixture(scope="module")
def artifact(folder: Path) -> ModelArtifact:
    return load_artifact(folder)


@pytest.fixture(scope="module")
def edge(artifact: ModelArtifact) -> Edge:
    return Edge(FastAPI(), predictors_of(artifact, "fraud"), timedelta(seconds=10), MOST_BYTES)


def ask(edge: Any, path: str, body: Any = None) -> httpx.Response:
    """Post a body, or get if there is none."""

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://service") as client:
            content = body if isinstance(body, bytes) else orjson.dumps(body)
            return await (client.get(path) if body is None else client.post(path, content=content))

    return asyncio.run(send())


def tensor(data: Sequence[Any], shape: Sequence[int], **changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "vectors", "datatype": "FP64", "shape": shape, "data": data} | changes]}


def scores_of(estimator: Any, vectors: Sequence[Sequence[float | None]]) -> list[float]:
    return estimator.predict_proba(np.array(vectors, dtype=np.float64))[:, 1].tolist()


def test_vectors_are_scored_by_the_model_and_null_is_what_it_was_trained_with(
    edge: Edge, artifact: ModelArtifact, folder: Path
) -> None:
    answer = ask(edge, V1, {"instances": VECTORS})

    assert answer.status_code == 200
    assert answer.json() == {"predictions": scores_of(artifact.estimator, VECTORS), "model": model_digest(folder)}


@pytest.mark.parametrize("nested", [False, True])
def test_a_tensor_of_vectors_has_the_same_scores(
    edge: Edge, artifact: ModelArtifact, folder: Path, nested: bool
) -> None:
    data = VECTORS if nested else [value for row in VECTORS for value in row]

    answer = ask(edge, V2, tensor(data, [3, 5]) | {"id": "r-1"})

    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": "fraud",
        "parameters": {"model": model_digest(folder)},
        "id": "r-1",
        "outputs": [
            {"name": "score", "datatype": "FP64", "shape": [3], "data": scores_of(artifact.estimator, VECTORS)}
        ],
    }
    assert "id" not in ask(edge, V2, tensor(data, [3, 5])).json()


def test_the_fallback_is_a_model_of_its_own_in_the_same_folder(
    edge: Edge, artifact: ModelArtifact, folder: Path
) -> None:
    shorter = [row[1:] for row in VECTORS]

    by_v1 = ask(edge, "/v1/models/fraud-fallback:predict", {"instances": shorter}).json()
    by_v2 = ask(edge, "/v2/models/fraud-fallback/infer", tensor(shorter, [3, 4])).json()

    assert by_v1 == {"predictions": scores_of(artifact.fallback, shorter), "model": model_digest(folder)}
    assert (by_v2["model_name"], by_v2["outputs"][0]["data"]) == ("fraud-fallback", by_v1["predictions"])
    refused = ask(edge, "/v1/models/fraud-fallback:predict", {"instances": VECTORS})
    assert (refused.status_code, refused.json()["error"]) == (
        400,
        "the instances have the shape [3, 5], the contract has 4 features",
    )


def test_each_model_says_which_model_of_which_contract_it_is(
    edge: Edge, artifact: ModelArtifact, folder: Path
) -> None:
    same = {"ready": True, "model": model_digest(folder)}
    fallback = artifact.contract.fallback
    assert fallback is not None

    assert ask(edge, "/v1/models/fraud").json() == same | {"name": "fraud", "contract": artifact.contract.hash}
    assert ask(edge, "/v2/models/fraud-fallback/ready").json() == same | {
        "name": "fraud-fallback",
        "contract": fallback.hash,
    }
    assert ask(edge, "/v2/health/ready").json()["ready"] is True


def test_without_a_fallback_there_is_one_model(tmp_path: Path) -> None:
    plain = load_artifact(fraud_case.write_model(tmp_path, fraud_case.contract(), fraud_case.fitted()))

    (only,) = predictors_of(plain, "fraud")

    assert only.name == "fraud"
    assert only.get_input_types() == [{"name": "vectors", "datatype": "FP64", "shape": [-1, 5]}]
    assert only.get_output_types() == [{"name": "score", "datatype": "FP64", "shape": [-1]}]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is no JSON"),
        (b"[1, 2", "the body is no JSON"),
        (b"\xff", "the body is no JSON"),
        (b'{"instances": [[1e999, 0, 0, 0, 0]]}', "the body is no JSON"),
        (b'{"instances": [[NaN, 0, 0, 0, 0]]}', "the body is no JSON"),
        ([[1, 2, 3, 4, 5]], 'the body must be {"instances": [[number or null, ...], ...]}'),
        ({}, 'the body must be {"instances": [[number or null, ...], ...]}'),
        ({"instances": []}, 'the body must be {"instances": [[number or null, ...], ...]}'),
        ({"instances": {"a": 1}}, 'the body must be {"instances": [[number or null, ...], ...]}'),
        ({"instances": [1, 2, 3, 4, 5]}, "the instances have the shape [5], the contract has 5 features"),
        ({"instances": [[1, 2, 3, 4]]}, "the instances have the shape [1, 4], the contract has 5 features"),
        ({"instances": [[]]}, "the instances have the shape [1, 0], the contract has 5 features"),
        ({"instances": [[[1, 2, 3, 4, 5]]]}, "the instances have the shape [1, 1, 5], the contract has 5 features"),
        ({"instances": [[1, 2, 3, 4, 5], [1, 2, 3, 4]]}, "the instances are no vectors of numbers"),
        ({"instances": [[1, 2, 3, 4, "five"]]}, "the instances are no vectors of numbers"),
        ({"instances": [[1, 2, 3, 4, "5"]]}, "the instances are no vectors of numbers"),
        ({"instances": [[1, 2, None, 4, True]]}, "the instances are no vectors of numbers"),
        ({"instances": [[1, 2, 3, 4, {}]]}, "the instances are no vectors of numbers"),
        ({"instances": [{"a": 1}]}, "the instances are no vectors of numbers"),
    ],
)
def test_what_is_no_vectors_of_the_contract_is_refused_in_words(edge: Edge, body: Any, message: str) -> None:
    answer = ask(edge, V1, body)

    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")
    assert answer.json()["error"].startswith(message)


ROW = [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is no JSON"),
        ({"instances": [ROW]}, "the body has the unknown field 'instances'"),
        (tensor(ROW, [1, 5], name="x"), "the inputs are x; it must be one tensor named 'vectors'"),
        (tensor(ROW, [1, 5], datatype="FP32"), "vectors has the datatype 'FP32', not FP64"),
        (tensor(ROW, [5]), "vectors has the shape [5], not [rows, 5]"),
        (tensor(ROW, [5, 1]), "vectors has the shape [5, 1], not [rows, 5]"),
        (tensor(ROW[1:], [1, 5]), "vectors holds 4 values, its shape [1, 5] says 5"),
        (tensor([ROW, ROW], [1, 5]), "vectors does not hold what its shape [1, 5] says"),
        (tensor([ROW, ROW[1:]], [2, 5]), "vectors does not hold what its shape [2, 5] says"),
        (tensor([], [0, 5]), "the tensor 'vectors' has no row"),
        (tensor([*ROW[1:], "five"], [1, 5]), "the instances are no vectors of numbers"),
        (tensor([*ROW[1:], "NaN"], [1, 5]), "the instances are no vectors of numbers"),
        (tensor([*ROW[1:], [5]], [1, 5]), "the instances are no vectors of numbers"),
    ],
)
def test_what_is_no_tensor_of_the_contract_s_vectors_is_refused_in_words(edge: Edge, body: Any, message: str) -> None:
    answer = ask(edge, V2, body)

    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")
    assert answer.json()["error"].startswith(message)


def test_vectors_are_read_as_they_are_and_null_is_nan() -> None:
    read = parse_vectors({"instances": [[0.1 + 0.2, None], [-0.0, 1 << 53]]}, 2)

    np.testing.assert_array_equal(read, [[0.1 + 0.2, np.nan], [-0.0, 2.0**53]])
    assert np.signbit(read[1, 0])

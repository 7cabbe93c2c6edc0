"""What a request becomes on its way to an answer, and the answer in either protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lockstep.online.reader import Reading
from lockstep.serving import tensors
from lockstep.serving.answering import FALLBACK, Answering
from lockstep.serving.edge import Asked
from lockstep.serving.request import Request

FRESH, FLAGGED = "fresh", "flagged"
OUTPUTS = {"score": "FP64", "flags": "BYTES"}


@dataclass(frozen=True)
class Prepared:
    """A request with its vectors, before it is scored.

    Attributes:
        asked: what came over HTTP.
        request: what that says.
        read_time_us: when the store had answered, in microseconds.
        reading: what it answered, of the views of the contract that answers.
        answering: which model is asked.
        vectors: rows by features of its contract; null is NaN.
        flags: what is unusual, one list a row.
        seconds: how long the store took.
    """

    asked: Asked
    request: Request
    read_time_us: int
    reading: Reading
    answering: Answering
    vectors: NDArray[np.float64]
    flags: Sequence[Sequence[str]]
    seconds: float


@dataclass(frozen=True)
class Scored:
    """A request with its scores, one a row, and how many seconds the predictor took."""

    prepared: Prepared
    scores: list[float]
    seconds: float


def outcome_of(scored: Scored, main: Answering) -> str:
    """Return what became of a request, in a word."""
    if scored.prepared.answering is not main:
        return FALLBACK
    return FLAGGED if any(scored.prepared.flags) else FRESH


def predictions_of(scored: Scored, outcome: str, digest: str) -> dict[str, Any]:
    """Return the answer of the V1 protocol."""
    return {
        "predictions": scored.scores,
        "request_id": scored.prepared.request.id,
        "outcome": outcome,
        "flags": scored.prepared.flags,
        "contract": scored.prepared.answering.hash,
        "model": digest,
    }


def tensors_of(scored: Scored, outcome: str, digest: str, name: str) -> dict[str, Any]:
    """Return the answer of the V2 protocol; the flags of a row are one text, with commas between them."""
    prepared = scored.prepared
    values = {"score": scored.scores, "flags": [",".join(of_row) for of_row in prepared.flags]}
    return {
        "model_name": name,
        "id": prepared.request.id,
        "parameters": {"outcome": outcome, "contract": prepared.answering.hash, "model": digest},
        "outputs": [tensors.output(output, kind, values[output]) for output, kind in OUTPUTS.items()],
    }

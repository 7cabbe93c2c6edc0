"""Evaluations in the lake: each is named by its hash, so that a number in one cannot be changed unseen."""

import pyarrow as pa

from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.lake.documents import find_document
from lockstep.settings import Settings
from lockstep.training.evaluation.document import Evaluation
from lockstep.views.declare import ARROW_TYPES

EVALUATIONS = "evaluations"
EVALUATIONS_SCHEMA = pa.schema(
    [
        pa.field("evaluation", pa.string(), nullable=False),
        pa.field("created", ARROW_TYPES["timestamp"], nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("contract", pa.string(), nullable=False),
        pa.field("alarms", pa.int64(), nullable=False),
        pa.field("json", pa.string(), nullable=False),
    ]
)


def keep_evaluation(lake: Lake, evaluation: Evaluation) -> str:
    """Keep an evaluation in the lake; return its name."""
    lake.ensure_table(EVALUATIONS, EVALUATIONS_SCHEMA)
    row = {
        "evaluation": evaluation.hash,
        "created": evaluation.created_at,
        "model": evaluation.model.digest,
        "contract": evaluation.model.contract,
        "alarms": len(evaluation.alarms),
        "json": evaluation.to_json(),
    }
    lake.append(EVALUATIONS, pa.Table.from_pylist([row], EVALUATIONS_SCHEMA))
    return evaluation.hash


def load_evaluation(settings: Settings, lake: Lake, name: str) -> Evaluation:
    """Read an evaluation and check that it is what its name says.

    Raises:
        BadInput: there is none of that name, or it was changed since.
    """
    found = find_document(settings, lake, EVALUATIONS, "evaluation", name)
    if found is None:
        raise BadInput(f"there is no evaluation {name!r}", hint="training makes one: lockstep run train")
    try:
        evaluation = Evaluation.model_validate_json(found)
    except ValueError as invalid:
        raise BadInput(f"evaluation {name} cannot be read: {invalid}") from invalid
    if evaluation.hash != name:
        raise BadInput(f"evaluation {name} was changed after it was made: its content hashes to {evaluation.hash}")
    return evaluation

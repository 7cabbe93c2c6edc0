"""Evaluations in the lake: each is named by its hash, so that a number in one cannot be changed unseen."""

import pyarrow as pa

from lockstep.lake import Lake
from lockstep.lake.documents import find_document, load_document, require_name
from lockstep.lake.engine import connect
from lockstep.settings import Settings
from lockstep.training.evaluation.document import Evaluation, Rules
from lockstep.views.declare import ARROW_TYPES

EVALUATIONS = "evaluations"
_WHAT = "evaluation"  # and the column that has the names
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


def keep_evaluation(settings: Settings, lake: Lake, evaluation: Evaluation) -> str:
    """Keep an evaluation in the lake, unless it is there; return its name."""
    lake.ensure_table(EVALUATIONS, EVALUATIONS_SCHEMA)
    if find_document(settings, lake, EVALUATIONS, _WHAT, evaluation.hash) is None:
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
    hint = "training makes one: lockstep run train"
    return load_document(settings, lake, EVALUATIONS, _WHAT, name, Evaluation, what=_WHAT, hint=hint)


def evaluations_of(settings: Settings, lake: Lake, digest: str, rules: Rules) -> list[Evaluation]:
    """Return every evaluation of a model by these rules, the newest first; what another release wrote is of other rules.

    Raises:
        BadInput: one was changed since it was made.
    """
    if not lake.exists(EVALUATIONS):
        return []
    with connect(settings) as connection:
        lake.register(connection, "evaluations", EVALUATIONS, columns=["evaluation", "created", "model", "json"])
        found: list[tuple[str, str]] = connection.execute(
            "SELECT evaluation, json FROM evaluations WHERE model = ? ORDER BY created DESC, evaluation", [digest]
        ).fetchall()
    made: list[Evaluation] = []
    for name, text in found:
        try:
            evaluation = Evaluation.model_validate_json(text)
        except ValueError:
            continue
        require_name(evaluation, name, _WHAT)
        if evaluation.rules == rules:
            made.append(evaluation)
    return made


def alarmed(settings: Settings, lake: Lake, digest: str, rules: Rules, *, beside: str) -> list[str]:
    """Return what other evaluations of this model by these rules say against it: one without alarms does not outweigh them."""
    others = (e for e in evaluations_of(settings, lake, digest, rules) if e.hash != beside)
    return [
        f"its evaluation {e.hash[:12]} raised the alarm {alarm.name}: {alarm.subject}"
        for e in others
        for alarm in e.alarms
    ]

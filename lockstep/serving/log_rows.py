"""A row of the served log: its schema, how a served request becomes rows, and how their values are read again."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, cast

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from lockstep.errors import SchemaDrift
from lockstep.online.reader import Reading
from lockstep.serving.request import Request

SERVED_LOG = "served_log"
PARTITION_BY = "request_time"
ROW_FIELD = b"row"
_MAY_BE_NULL = {"score", "rejected"}
_OF_VIEW = ("view", "status", "values")
UNIFORM = "uniform"
FLAGGED = "flagged"

_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("row", pa.int32()),
        ("request_time", _TIME),  # t: what the caller sent
        ("read_time", _TIME),  # r: when the store had answered
        ("inputs", pa.string()),  # JSON: the request inputs as sent, without the request time
        ("entity_keys", pa.string()),  # JSON
        ("epoch_before", pa.string()),  # JSON
        ("epoch_after", pa.string()),  # JSON
        (
            "views",
            pa.list_(
                pa.struct(
                    [
                        ("view", pa.string()),
                        ("status", pa.string()),  # present, missing or stale
                        ("event_timestamp", _TIME),
                        ("created_timestamp", _TIME),  # null: unknown
                        ("values", pa.string()),  # JSON: as stored, before on-demand functions and policy
                    ]
                )
            ),
        ),
        ("vector", pa.list_(pa.float64())),  # null for NaN
        ("contract", pa.string()),
        ("model", pa.string()),
        ("score", pa.float64()),  # null: rejected
        ("rejected", pa.string()),  # view:feature for want of which there is no score; null: answered
        ("flags", pa.list_(pa.string())),
        ("shadow", pa.bool_()),
        ("why", pa.string()),  # uniform, or flagged
        ("process", pa.string()),
        ("counter", pa.int64()),  # from 1 in each process; gaps are losses
    ]
)


@dataclass(frozen=True)
class Served:
    """One request that was answered, or refused for its rejected rows, not yet in the log's form.

    Attributes:
        request: what was asked.
        read_time_us: when the store had answered, in microseconds.
        reading: what it answered.
        vectors: what the policy made of that, rows by features; the model got those of the rows that have a score.
        scores: what it said, one a row; None where it was not asked.
        flags: what was unusual, one list a row.
        contract: the hash of the contract that made the vectors.
        shadow: nobody acts on the answer.
        rejected: of each rejected row, by its number, the feature that it lacks. A row that has no score and is not among them
            was not answered either, for the sake of those that are; it is not logged.
    """

    request: Request
    read_time_us: int
    reading: Reading
    vectors: NDArray[np.float64]
    scores: Sequence[float | None]
    flags: Sequence[Sequence[str]]
    contract: str
    shadow: bool
    rejected: Mapping[int, str] = field(default_factory=dict[int, str])


def chosen_rows(served: Served, rate: float) -> list[tuple[int, str]]:
    """Return which rows are logged, each with why.

    By the request's id alone, so that the same request is chosen by every process. Callers choose the ids: of one who gives all
    requests the same id, all are logged, or none but flagged rows, whatever the rate.

    Args:
        served: all its rows that were answered or rejected are chosen, or none, by a hash of the request's id.
        rate: the share of the requests to choose. Other rows are chosen if they are flagged.
    """
    rows = [row for row, score in enumerate(served.scores) if score is not None or row in served.rejected]
    if rate >= 1 or _share(served.request.id) < rate:
        return [(row, UNIFORM) for row in rows]
    return [(row, FLAGGED) for row in rows if served.flags[row]]


def _share(request_id: str) -> float:
    """Return where an id lies in [0, 1)."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest()) / 2**64


def stream_key(project: str) -> str:
    """Return the name of the project's Redis Stream."""
    return f"lockstep:served:{project}"


def encode_values(values: Mapping[str, Any]) -> str:
    """Return stored values as JSON; what JSON has no number for is the text "NaN", "Infinity" or "-Infinity" (as in protobuf)."""
    return orjson.dumps({name: _encoded(value) for name, value in values.items()}).decode()


def decode_values(text: str, floats: Collection[str]) -> dict[str, Any]:
    """Read what `encode_values` wrote; `floats` names the columns that hold floats."""
    values = orjson.loads(text)
    return {n: float(v) if n in floats and isinstance(v, str) else v for n, v in values.items()}


def _encoded(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124 - NaN is unequal to itself
    return value.hex() if isinstance(value, bytes) else value


def encode_rows(
    served: Served, chosen: Sequence[tuple[int, str]], model: str, process: str, counter: int
) -> Iterator[bytes]:
    """Yield each chosen row as JSON with the schema's names; times are whole microseconds, `counter` is the first one's."""
    request, reading = served.request, served.reading
    before, after = reading.before.to_json().decode(), reading.after.to_json().decode()
    for number, (row, why) in enumerate(chosen, counter):
        views = [
            {
                "view": name,
                "status": rows.status[row],
                "event_timestamp": rows.event_us[row],
                "created_timestamp": _known(rows.created_us[row]),
                "values": encode_values({column: values[row] for column, values in rows.values.items()}),
            }
            for name, rows in reading.views.items()
        ]
        document = {
            "request_id": request.id,
            "row": row,
            "request_time": request.times_us[row],
            "read_time": served.read_time_us,
            "inputs": orjson.dumps(request.inputs[row]).decode(),
            "entity_keys": orjson.dumps({key: values[row] for key, values in request.entities.items()}).decode(),
            "epoch_before": before,
            "epoch_after": after,
            "views": views,
            "vector": served.vectors[row],
            "contract": served.contract,
            "model": model,
            "score": served.scores[row],
            "rejected": served.rejected.get(row),
            "flags": served.flags[row],
            "shadow": served.shadow,
            "why": why,
            "process": process,
            "counter": number,
        }
        yield orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def read_row(entry: bytes, fields: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    """Read the row that an entry of the stream holds, with the schema's names.

    A transformer that knew no `rejected` logged answered rows alone.

    Raises:
        SchemaDrift: it holds none, or one with other fields, or with null in one in which each row says something.
    """
    name, names = entry.decode(), set(SCHEMA.names)
    hint = f"remove it (XDEL lockstep:served:<project> {name}); nothing from it on is drained before"
    if ROW_FIELD not in fields:
        raise SchemaDrift(f"stream entry {name} is no row of {SERVED_LOG}: it has no field `row`", hint=hint)
    try:
        row = orjson.loads(fields[ROW_FIELD])
    except orjson.JSONDecodeError as wrong:
        raise SchemaDrift(f"stream entry {name} is no row of {SERVED_LOG}: it is no JSON", hint=hint) from wrong
    if not isinstance(row, dict):
        raise SchemaDrift(f"stream entry {name} is no row of {SERVED_LOG}: it is no object", hint=hint)
    document = {"rejected": None} | cast("dict[str, Any]", row)
    if document.keys() != names:
        different = ", ".join(sorted(document.keys() ^ names))
        raise SchemaDrift(f"stream entry {name} is no row of {SERVED_LOG}: it differs in {different}", hint=hint)
    if nulls := _nulls(document):
        raise SchemaDrift(f"stream entry {name} is no row of {SERVED_LOG}: it has no {', '.join(nulls)}", hint=hint)
    return document


def _nulls(document: Mapping[str, Any]) -> list[str]:
    """Return the fields of a row that are null and must not be: a view's times may be, it was not read, or nobody said when."""
    nulls = [name for name in SCHEMA.names if document[name] is None and name not in _MAY_BE_NULL]
    views: list[Any] = document["views"] if isinstance(document["views"], list) else []
    read = [cast("dict[str, Any]", view) for view in views if isinstance(view, dict)]
    return nulls + [f"views.{name}" for name in _OF_VIEW if any(view.get(name) is None for view in read)]


def _known(created_us: int | None) -> int | None:
    """Return a created time, or None for the reader's -1: another writer did not say."""
    return None if created_us == -1 else created_us

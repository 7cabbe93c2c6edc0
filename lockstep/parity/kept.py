"""Parity reports that are kept in the lake: signed, found by name, and believed only as they were signed."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lockstep.clock import to_micros
from lockstep.errors import BadInput, Refused
from lockstep.lake import Lake
from lockstep.lake.documents import require_name
from lockstep.lake.engine import connect
from lockstep.parity.report import ParityReport
from lockstep.parity.signature import is_signed, public_file, sign, verify_key
from lockstep.settings import Settings
from lockstep.views.declare import ARROW_TYPES

PARITY_REPORTS = "parity_reports"
REPORTS_SCHEMA = pa.schema(
    [
        pa.field("report", pa.string(), nullable=False),
        pa.field("created", ARROW_TYPES["timestamp"], nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("contract", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("json", pa.string(), nullable=False),
        pa.field("signature", pa.string(), nullable=False),
    ]
)
_HINT = "`lockstep parity verify` and `lockstep run verify-parity` make one"
_CLAIMED = ("report", "epoch_us(created)", "model", "contract", "verdict")
"""Columns that repeat what the JSON says."""


@dataclass(frozen=True)
class _Kept:
    """A row of the table: what its columns claim of the report, the report, and the signature of that."""

    claims: tuple[str | int, ...]
    json: str
    signature: str


def store(lake: Lake, report: ParityReport, key: Ed25519PrivateKey) -> str:
    """Keep a report in the lake, signed; return its name."""
    lake.ensure_table(PARITY_REPORTS, REPORTS_SCHEMA)
    row = {
        "report": report.hash,
        "created": report.created,
        "model": report.model.digest,
        "contract": report.model.contract,
        "verdict": report.verdict.value,
        "json": report.to_json(),
        "signature": sign(report.to_json(), key),
    }
    lake.append(PARITY_REPORTS, pa.Table.from_pylist([row], REPORTS_SCHEMA))
    return report.hash


def load(settings: Settings, lake: Lake, name: str) -> ParityReport:
    """Read a report, if it was signed and nothing of it was changed since.

    Raises:
        BadInput: there is none of that name, it is no report, or there is no key to verify with.
        Refused: it is not signed, not by this key, or not what was signed.
    """
    key = verify_key(settings)
    rows = _find(settings, lake, name)
    report = _read(rows[0].json, name)
    for row in rows:
        if not row.signature:
            raise Refused(f"parity report {name} is not signed", hint=_HINT)
        if not is_signed(row.json, row.signature, key):
            hashed = _read(row.json, name).hash
            raise Refused(
                f"parity report {name} was changed after it was signed: its content hashes to {hashed}"
                if hashed != name
                else f"the signature of parity report {name} is not by the key that {public_file(settings)} verifies"
            )
        for column, claimed, said in zip(_CLAIMED, row.claims, _claims(report), strict=True):
            if claimed != said:
                raise Refused(
                    f"parity report {name} was changed: its column {column} says {claimed}, and it says {said}"
                )
    return report


def peek(settings: Settings, lake: Lake, name: str) -> ParityReport:
    """Read a report to show it: its content is what its name says, but who made it is not asked.

    Raises:
        BadInput: there is none of that name, or it was changed since.
    """
    report = _read(_find(settings, lake, name)[0].json, name)
    require_name(report, name, "parity report")
    return report


def newest(settings: Settings, lake: Lake) -> str:
    """Return the name of the report that was made last.

    Raises:
        BadInput: there is none.
    """
    if lake.exists(PARITY_REPORTS):
        with connect(settings) as connection:
            lake.register(connection, "reports", PARITY_REPORTS, columns=["report", "created"])
            found = connection.execute("SELECT report FROM reports ORDER BY created DESC, report LIMIT 1").fetchone()
        if found:
            return str(found[0])
    raise BadInput("there is no parity report yet", hint=_HINT)


def _find(settings: Settings, lake: Lake, name: str) -> Sequence[_Kept]:
    """Return the rows of that name: several, if it was kept twice or somebody added one."""
    found: list[tuple[str | int, ...]] = []
    if lake.exists(PARITY_REPORTS):
        with connect(settings) as connection:
            lake.register(connection, "reports", PARITY_REPORTS, columns=REPORTS_SCHEMA.names)
            wanted = (
                f"SELECT DISTINCT {', '.join(_CLAIMED)}, json, signature FROM reports WHERE report = ? ORDER BY ALL"
            )
            found = connection.execute(wanted, [name]).fetchall()
    if not found:
        raise BadInput(f"there is no parity report {name!r}", hint=_HINT)
    return [_Kept(claims=row[:-2], json=str(row[-2]), signature=str(row[-1])) for row in found]


def _claims(report: ParityReport) -> tuple[str | int, ...]:
    created = to_micros(report.created)
    return report.hash, created, report.model.digest, report.model.contract, report.verdict.value


def _read(text: str, name: str) -> ParityReport:
    try:
        return ParityReport.model_validate_json(text)
    except ValueError as invalid:
        raise BadInput(f"parity report {name} cannot be read: {invalid}") from invalid

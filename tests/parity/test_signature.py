"""A report is believed only as it was signed, by the key that the gate verifies with."""

import base64
import stat
import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from kept_reports import a_report

from lockstep.errors import BadInput, LockstepError, Refused, SchemaDrift
from lockstep.lake import Lake
from lockstep.parity.kept import NEWEST, PARITY_REPORTS, load, name_of, peek, store
from lockstep.parity.report import ParityReport
from lockstep.parity.signature import KeyFiles, is_signed, make_keys, sign, signing_key, verify_key
from lockstep.parity.verdict import Verdict
from lockstep.settings import Settings

PKCS8 = Encoding.PEM, PrivateFormat.PKCS8
Row = dict[str, Any]


@pytest.fixture
def keys(settings: Settings) -> KeyFiles:
    return make_keys(settings)


def test_a_pair_is_made_once_and_only_its_owner_reads_the_private_key(settings: Settings, keys: KeyFiles) -> None:
    assert keys == KeyFiles(settings.home / "keys" / "parity.pem", settings.home / "keys" / "parity.pub.pem")
    assert [stat.S_IMODE(file.stat().st_mode) for file in (keys.private, keys.public)] == [0o600, 0o644]
    made = keys.private.read_bytes(), keys.public.read_bytes()
    assert make_keys(settings) == keys
    assert (keys.private.read_bytes(), keys.public.read_bytes()) == made
    assert sorted(keys.private.parent.iterdir()) == [keys.private, keys.public], "no draft is left"


def test_of_two_who_make_keys_at_once_the_faster_ones_stay(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, made = tempfile.mkstemp, list[bytes]()

    def somebody_is_faster(**given: Path) -> tuple[int, str]:
        monkeypatch.undo()
        made.append(make_keys(settings).private.read_bytes())
        return begin(**given)

    monkeypatch.setattr(tempfile, "mkstemp", somebody_is_faster)
    files = make_keys(settings)
    assert [files.private.read_bytes()] == made
    assert sorted(files.private.parent.iterdir()) == [files.private, files.public]


def test_a_lost_public_key_is_made_from_the_private_one_and_not_the_other_way_round(
    settings: Settings, keys: KeyFiles
) -> None:
    public = keys.public.read_bytes()
    keys.public.unlink()
    make_keys(settings)
    assert keys.public.read_bytes() == public
    keys.private.unlink()
    with pytest.raises(BadInput, match=r"parity\.pub\.pem is there and its private key .* is not"):
        make_keys(settings)
    assert keys.public.read_bytes() == public


def test_two_files_that_are_no_pair_are_not_taken_for_one(settings: Settings, keys: KeyFiles, tmp_path: Path) -> None:
    other = make_keys(settings.model_copy(update={"home": tmp_path / "other"}))
    keys.public.write_bytes(other.public.read_bytes())
    with pytest.raises(BadInput, match="is not the public key of"):
        make_keys(settings)


def test_the_settings_say_where_the_keys_are_and_one_of_them_is_not_guessed(
    settings: Settings, keys: KeyFiles, tmp_path: Path
) -> None:
    files = KeyFiles(tmp_path / "elsewhere" / "a.pem", tmp_path / "elsewhere" / "b.pem")
    both = settings.model_copy(update={"parity_signing_key": files.private, "parity_verify_key": files.public})
    assert make_keys(both) == files
    assert files.private.read_bytes() != keys.private.read_bytes()
    verifies = settings.model_copy(update={"parity_verify_key": files.public})
    assert verify_key(verifies).public_bytes_raw() == signing_key(both).public_key().public_bytes_raw()
    with pytest.raises(BadInput, match="the setting parity_signing_key is not given, and its counterpart is"):
        signing_key(verifies)


def test_without_a_key_it_is_said_how_to_make_one(settings: Settings) -> None:
    for read, what in ((signing_key, "sign"), (verify_key, "verify")):
        with pytest.raises(BadInput, match=f"there is no key to {what} parity reports with") as missing:
            read(settings)
        assert "`lockstep parity keys`" in missing.value.hint
    assert not (settings.home / "keys").exists(), "asking makes none"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        Ed25519PrivateKey.generate().private_bytes(*PKCS8, BestAvailableEncryption(b"secret")),
        generate_private_key(SECP256R1()).private_bytes(*PKCS8, NoEncryption()),
    ],
    ids=["empty", "text", "with a password", "of another kind"],
)
def test_a_file_that_is_no_such_key_is_bad_input(settings: Settings, keys: KeyFiles, content: bytes) -> None:
    for file, read in ((keys.private, signing_key), (keys.public, verify_key)):
        file.write_bytes(content)
        with pytest.raises(BadInput, match=f"{file.name} is "):
            read(settings)


def test_a_signature_is_of_one_text_by_one_key() -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    signature = sign('{"a":1}', key)
    assert is_signed('{"a":1}', signature, key.public_key())
    assert not is_signed('{"a":2}', signature, key.public_key())
    assert not is_signed('{"a":1}', signature, other.public_key())
    assert not is_signed('{"a":1}', "ä", key.public_key())
    assert not is_signed('{"a":1}', base64.b64encode(b"short").decode(), key.public_key())


def test_a_report_that_was_signed_is_found_by_its_name(settings: Settings, keys: KeyFiles) -> None:
    lake, report = Lake.open(settings, "test"), a_report()
    with pytest.raises(BadInput, match="there is no parity report yet"):
        name_of(settings, lake, NEWEST)
    with pytest.raises(BadInput, match="there is no parity report 'nope'"):
        load(settings, lake, "nope")
    name = store(lake, report, signing_key(settings))
    assert load(settings, lake, name) == peek(settings, lake, name) == report
    assert store(lake, report, signing_key(settings)) == name
    assert load(settings, lake, name) == report, "kept twice, it is the same"
    later = a_report(created=report.created + timedelta(seconds=1))
    store(lake, later, signing_key(settings))
    store(lake, report, signing_key(settings))
    assert name_of(settings, lake, NEWEST) == later.hash
    assert [name_of(settings, lake, each[:8]) for each in (name, later.hash)] == [name, later.hash]
    with pytest.raises(BadInput, match=f"'' may be {min(name, later.hash)} or {max(name, later.hash)}"):
        name_of(settings, lake, "")
    with pytest.raises(BadInput, match="there is no parity report 'x'"):
        name_of(settings, lake, "x")
    with pytest.raises(BadInput, match="there is no parity report 'nope'"):
        load(settings, lake, "nope")
    keys.public.unlink()
    with pytest.raises(BadInput, match="no key to verify"):
        load(settings, lake, name)


def rewritten(settings: Settings, change: Callable[[Row], Mapping[str, Any]], report: ParityReport) -> Lake:
    """A lake whose one report somebody changed, who can write the lake and has no key."""
    lake = Lake.open(settings, "test")
    store(lake, report, signing_key(settings))
    table = lake.table(PARITY_REPORTS).scan().to_arrow()
    rows = [row | change(row) for row in table.to_pylist()]
    lake.drop(PARITY_REPORTS)
    lake.ensure_table(PARITY_REPORTS, table.schema)
    lake.append(PARITY_REPORTS, pa.Table.from_pylist(rows, table.schema))
    return lake


PASSING, FAILING = a_report(verdict=Verdict.PASS, mismatches=0), a_report(verdict=Verdict.FAIL, mismatches=9)


def signed_by_another(row: Row) -> Row:
    return {"signature": sign(row["json"], Ed25519PrivateKey.generate())}


def edited(row: Row) -> Row:
    return {"json": PASSING.to_json()}


def edited_and_renamed(row: Row) -> Row:
    return {"json": PASSING.to_json(), "report": PASSING.hash, "verdict": "pass"}


def with_blanks(row: Row) -> Row:
    return {"json": orjson.dumps(orjson.loads(row["json"]), option=orjson.OPT_INDENT_2).decode()}


@pytest.mark.parametrize(
    ("change", "name", "kind", "reason"),
    [
        (lambda _: {"signature": ""}, FAILING.hash, Refused, "is not signed"),
        (signed_by_another, FAILING.hash, Refused, "is not by the key that .*parity.pub.pem verifies"),
        (lambda _: {"signature": "no base64"}, FAILING.hash, Refused, "is not by the key that"),
        (edited, FAILING.hash, Refused, f"was changed after it was signed: its content hashes to {PASSING.hash}"),
        (edited_and_renamed, PASSING.hash, Refused, "is not by the key that"),
        (with_blanks, FAILING.hash, Refused, "is not by the key that"),
        (lambda _: {"verdict": "pass"}, FAILING.hash, Refused, "its column verdict says pass, and it says fail"),
        (lambda _: {"model": "e" * 64}, FAILING.hash, Refused, "its column model says eee"),
        (lambda _: {"report": "another"}, "another", Refused, "its column report says another"),
        (lambda row: {"created": row["created"] + timedelta(days=1)}, FAILING.hash, Refused, "its column epoch_us"),
        (lambda row: {"json": row["json"][:-40]}, FAILING.hash, BadInput, "cannot be read"),
        (lambda _: {"json": ""}, FAILING.hash, BadInput, "cannot be read"),
        (lambda row: {"json": row["json"].replace("0.95", "null")}, FAILING.hash, BadInput, "cannot be read"),
    ],
)
def test_a_report_that_somebody_without_the_key_changed_is_not_believed(
    settings: Settings,
    keys: KeyFiles,
    change: Callable[[Row], Mapping[str, Any]],
    name: str,
    kind: type[LockstepError],
    reason: str,
) -> None:
    lake = rewritten(settings, change, FAILING)
    with pytest.raises(kind, match=reason) as refused:
        load(settings, lake, name)
    assert refused.value.exit_code == (3 if kind is Refused else 2)


def test_a_forged_row_beside_the_signed_one_is_seen(settings: Settings, keys: KeyFiles) -> None:
    lake = rewritten(settings, lambda _: {}, FAILING)
    (row,) = lake.table(PARITY_REPORTS).scan().to_arrow().to_pylist()
    forged = row | edited(row) | {"verdict": "pass"}
    lake.append(PARITY_REPORTS, pa.Table.from_pylist([forged], lake.table(PARITY_REPORTS).scan().to_arrow().schema))
    with pytest.raises(Refused, match="was changed after it was signed"):
        load(settings, lake, FAILING.hash)


def test_a_table_without_signatures_is_refused(settings: Settings, keys: KeyFiles) -> None:
    lake = rewritten(settings, lambda _: {}, FAILING)
    table = lake.table(PARITY_REPORTS).scan().to_arrow().drop_columns(["signature"])
    lake.drop(PARITY_REPORTS)
    lake.ensure_table(PARITY_REPORTS, table.schema)
    lake.append(PARITY_REPORTS, table)
    with pytest.raises(SchemaDrift, match="parity_reports lacks signature"):
        load(settings, lake, FAILING.hash)

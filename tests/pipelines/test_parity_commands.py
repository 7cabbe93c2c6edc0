"""What the commands about parity say, and what they end with."""

from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from kept_reports import a_report

from lockstep.lake import Lake
from lockstep.parity.kept import store
from lockstep.parity.report import ParityReport
from lockstep.parity.signature import make_keys, signing_key
from lockstep.parity.verdict import Verdict
from lockstep.settings import Settings
from pipelines.cli import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOCKSTEP_USE_CASE", "feature_repo")
    return tmp_path / "home"


FAILING = a_report()
LATER = a_report(
    created=FAILING.created + timedelta(hours=1), verdict=Verdict.NOT_ENOUGH_EVIDENCE, reasons=("too few",), scores=None,
    features=(), causes={}, differences=(),
)  # fmt: skip


@pytest.fixture
def kept(home: Path) -> Path:
    """A home in which two reports are kept."""
    settings = Settings.load()
    make_keys(settings)
    lake = Lake.open(settings, "fraud")
    for report in (LATER, FAILING):
        store(lake, report, signing_key(settings))
    return home


def test_a_report_is_told_verdict_first_then_what_differs_and_the_command_that_repairs_it(
    kept: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "pages" / "it.html"
    assert main(["parity", "report", FAILING.hash[:10], "--page", str(page)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "Version 3 is refused: 1 of 400 sampled rows are mismatches",
        "",
        "what differs",
        "  risk_7d of terminal_risk: missing, 1 row (0.25 %)",
        "      the lake holds a row inside its ttl, and none was read",
        "      the logged snapshot has a row of (event, created) = (1, 2)",
        "      served no value, expected 0.25 (row r/0)",
        "",
        "what to do",
        "  missing: Write the rows that the store does not have.",
        "      lockstep repair terminal_risk",
        "",
        "served     fraud 3 to a shadow replay, 29 Jun 2018 00:00 UTC to 30 Jun 2018 00:00 UTC: 960 rows",
        "compared   400 rows at random, 130 of every hour and kind",
        "scores     1 of 3 differ, by 0.625 at most; 1 would have been decided otherwise at 0.5",
        "made       30 Jun 2018 00:00 UTC",
        f"page       {page}",
        f"report     {FAILING.hash}, signed",
    ]
    assert "Version 3 is refused" in page.read_text()


def test_the_newest_report_is_shown_if_none_is_named(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ([], ["newest"]):
        assert main(["parity", "report", *name]) == 0
        said = capsys.readouterr().out
        assert said.startswith("Version 3 cannot be judged yet: too few\n\nwhat to do\n")
        assert "      lockstep run drain-served-log\n" in said
        assert said.endswith(f"report     {LATER.hash}, signed\n")
    assert main(["parity", "report", "--json"]) == 0
    assert ParityReport.model_validate(orjson.loads(capsys.readouterr().out)) == LATER


def test_a_report_that_the_gate_would_not_believe_is_shown_with_that(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kept / "keys" / "parity.pem").unlink()
    (kept / "keys" / "parity.pub.pem").unlink()
    for keys_made, told in ((False, "there is no key to verify"), (True, "is not by the key that")):
        if keys_made:
            make_keys(Settings.load())
        assert main(["parity", "report"]) == 0
        assert f"{LATER.hash}, NOT BELIEVED: " in (said := capsys.readouterr().out)
        assert told in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["report", "nope"], "there is no parity report 'nope'"),
        (["verify", "--since", "yesterday"], "--since is no ISO 8601 time: 'yesterday'"),
        (["verify", "--model", "9"], "model 'fraud' has no version 9"),
        (["verify", "--hours", "0"], "Invalid value for '--hours'"),
    ],
)
def test_bad_input_ends_with_2_and_its_reason(
    kept: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(["parity", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_without_any_report_it_is_said_how_to_make_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", "report"]) == 2
    assert "there is no parity report yet\n\nHint: `lockstep parity verify`" in capsys.readouterr().err


def test_the_schema_is_printed_as_it_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", "schema"]) == 0
    published = Path(__file__).parents[2] / "docs" / "schemas" / "parity_report.schema.json"
    assert capsys.readouterr().out == published.read_text()


def test_keys_are_made_where_they_are_said_to_be_and_made_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", "keys"]) == 0
    said = capsys.readouterr().out
    files = home / "keys" / "parity.pem", home / "keys" / "parity.pub.pem"
    assert [line.rpartition(": ")[2] for line in said.splitlines()] == [str(file) for file in files]
    made = [file.read_bytes() for file in files]
    assert (main(["parity", "keys"]), capsys.readouterr().out) == (0, said)
    assert [file.read_bytes() for file in files] == made
    files[0].unlink()
    assert main(["parity", "keys"]) == 2
    assert "is there and its private key" in capsys.readouterr().err

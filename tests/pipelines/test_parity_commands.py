"""What the commands about parity say, and what they end with."""

from pathlib import Path

import pytest

from pipelines.cli import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


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

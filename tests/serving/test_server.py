"""What a process says that cannot start."""

import sys
from pathlib import Path

import fraud_case
import pytest

from lockstep.errors import BadInput
from lockstep.serving import predictor
from lockstep.serving.artifact import ESTIMATOR_FILE
from lockstep.serving.server import run
from lockstep.serving.transformer import serve_contract, transformer_arguments


def test_a_process_that_cannot_start_says_why_in_a_line_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "MLmodel").write_text("just text")
    given = transformer_arguments().parse_args(["--model_dir", str(tmp_path), "--predictor_host", "127.0.0.1:1"])

    with pytest.raises(SystemExit) as ended:
        run(lambda: serve_contract(given))

    assert ended.value.code == BadInput.exit_code == 2
    assert capsys.readouterr().err == f"BadInput: {tmp_path}/MLmodel describes no model\n"


def test_a_predictor_of_a_damaged_folder_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fraud_case.write_model(tmp_path, fraud_case.contract(), fraud_case.fitted())
    held = bytearray((folder / ESTIMATOR_FILE).read_bytes())
    held[len(held) // 2] ^= 0xFF
    (folder / ESTIMATOR_FILE).write_bytes(held)
    monkeypatch.setattr(sys, "argv", ["predictor", "--model_dir", str(folder), "--model_name", "fraud"])

    with pytest.raises(SystemExit) as ended:
        run(predictor.main)

    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"BadInput: {folder}/model.skops is no skops file: ")


def test_what_nobody_foresaw_is_not_taken_for_bad_input() -> None:
    def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(fails)

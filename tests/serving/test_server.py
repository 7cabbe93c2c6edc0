"""What a process says that cannot start."""

from pathlib import Path

import pytest

from lockstep.errors import BadInput
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


def test_what_nobody_foresaw_is_not_taken_for_bad_input() -> None:
    def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(fails)

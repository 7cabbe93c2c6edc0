"""A report is found in MLflow, with the version that it is about."""

import orjson
import pytest
from kept_reports import a_report

from lockstep.errors import Transient
from lockstep.parity.publish import publish
from lockstep.parity.report import ModelNamed, ParityReport
from lockstep.settings import Settings
from lockstep.training.registry import open_client, quiet


def test_a_report_and_its_page_are_logged_to_the_run_of_the_version_and_logging_again_changes_nothing(
    settings: Settings,
) -> None:
    report = a_report()
    with pytest.raises(Transient, match=f"report {report.hash} is kept, and MLflow did not take it"):
        publish(settings, report)
    with quiet():
        client = open_client(settings)
        location = (settings.home / "mlartifacts").as_uri()
        run = client.create_run(client.create_experiment("fraud", artifact_location=location)).info
        client.create_registered_model("fraud")
        made = [client.create_model_version("fraud", "file:///m", run_id=id_) for id_ in ("0" * 32, None, run.run_id)]
    assert [int(version.version) for version in made] == [1, 2, 3]

    for _ in range(2):
        assert publish(settings, report) == f"runs:/{run.run_id}/parity/{report.hash}.html"
    folder = settings.home / "mlartifacts" / run.run_id / "artifacts" / "parity"
    assert sorted(path.name for path in folder.iterdir()) == [f"{report.hash}.html", f"{report.hash}.json"]
    logged = ParityReport.model_validate(orjson.loads((folder / f"{report.hash}.json").read_bytes()))
    assert logged.hash == report.hash
    assert "Version 3 is refused" in (folder / f"{report.hash}.html").read_text()

    without_run = a_report(model=ModelNamed(name="fraud", version=2, digest="d" * 64, contract="c" * 64))
    assert publish(settings, without_run) == ""

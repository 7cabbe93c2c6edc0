"""A report and its page beside the run that made the model, in MLflow: where people look up what is known of a version.

https://mlflow.org/docs/latest/ml/tracking/artifact-stores/
"""

from mlflow.exceptions import MlflowException

from lockstep.errors import Transient
from lockstep.parity.page import render
from lockstep.parity.report import ParityReport
from lockstep.settings import Settings
from lockstep.training.registry import open_client, quiet

FOLDER = "parity"


def publish(settings: Settings, report: ParityReport) -> str:
    """Log a report and its page to the run of the model version it is about; once more changes nothing.

    Returns:
        The page's address, `runs:/<run>/parity/<report>.html`, beside which the report is; "" where the version has no run.

    Raises:
        Transient: MLflow did not take them.
    """
    model, name = report.model, f"{FOLDER}/{report.hash}"
    try:
        with quiet():
            client = open_client(settings)
            run = client.get_model_version(model.name, str(model.version)).run_id
            if not run:
                return ""
            client.log_text(run, report.to_json(), f"{name}.json")
            client.log_text(run, render([report]), f"{name}.html")
    except MlflowException as failed:
        raise Transient(
            f"parity report {report.hash} is kept, and MLflow did not take it: {failed}",
            hint=f"see to {settings.tracking_url.rpartition('@')[2]}; a verification that runs again makes a report anew",
        ) from failed
    return f"runs:/{run}/{name}.html"

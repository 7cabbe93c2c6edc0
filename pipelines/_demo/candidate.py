"""The three models that the demo serves side by side: without feature views, with them, and with one of them misread."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
from sklearn.metrics import average_precision_score, roc_auc_score

from lockstep.local.serving import LocalService
from lockstep.serving.client import score
from lockstep.serving.request import MAX_ROWS
from lockstep.settings import Settings
from lockstep.training.registry import Registered
from pipelines._demo.world import Requests

SECONDS = 60.0


@dataclass
class Candidate:
    """One registered version, dark, and how it scored the world's requests.

    Attributes:
        label: what to call it in a table.
        model: the version.
        training_rows: how many rows it was trained and judged on.
        url: where it is asked, once it is served.
        scores: of all requests so far, in order.
    """

    label: str
    model: Registered
    training_rows: int
    url: str = ""
    scores: list[float] = field(default_factory=list[float])

    def serve(self, settings: Settings, name: str, running: ExitStack, skew: Mapping[str, str] | None) -> None:
        """Start its transformer and predictor, to end with `running`; `skew` makes the transformer misread a column."""
        misreading = [f"--{option}={value}" for option, value in (skew or {}).items()]
        module = "lockstep.skew.faults.wrong_column" if skew else "lockstep.serving.transformer"
        service = LocalService(
            settings, self.model.model_dir, name, shadow=True, transformer=module, options=misreading
        )
        self.url = running.enter_context(service).predict_url

    def ask(self, client: httpx.Client, requests: Requests) -> None:
        """Have requests scored, and keep the scores."""
        instances = requests.instances(self.model.contract)
        for start in range(0, len(instances), MAX_ROWS):
            self.scores += score(client, self.url, instances[start : start + MAX_ROWS], self.model.digest)

    def quality(self, requests: Requests) -> dict[str, float]:
        """Return average precision and AUC of what was served for all these requests."""
        return {
            "average_precision": float(average_precision_score(requests.labels, self.scores)),
            "auc": float(roc_auc_score(requests.labels, self.scores)),
        }

    def described(self) -> dict[str, Any]:
        """Return what names the version, and how it did on the days held out of training."""
        return {
            "version": self.model.version,
            "service": self.model.contract.feature_service,
            "digest": self.model.digest,
            "contract": self.model.contract.hash,
            "training_rows": self.training_rows,
            "average_precision": self.model.metrics["average_precision"],
            "auc": self.model.metrics["auc"],
        }

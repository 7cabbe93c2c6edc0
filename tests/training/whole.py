"""All of training after the set is built: fit, judge, register."""

from dataclasses import dataclass
from pathlib import Path

from lockstep.settings import Settings
from lockstep.training.evaluation.document import Evaluation
from lockstep.training.judge import judge
from lockstep.training.register import register
from lockstep.training.train import train
from lockstep.views import UseCase


@dataclass(frozen=True)
class Trained:
    """A model on its way to the registry, and there."""

    model: str
    model_uri: str
    model_dir: Path
    digest: str
    contract_hash: str
    evaluation: Evaluation
    version: int


def train_whole(settings: Settings, use_case: UseCase, training_set: str) -> Trained:
    """Do what the workflow's last three steps do."""
    logged = train(settings, use_case, training_set)
    evaluation = judge(settings, use_case, logged.model)
    done = register(settings, use_case, logged.model, evaluation.hash)
    assert done.digest == logged.digest
    return Trained(
        logged.model,
        logged.model_uri,
        logged.model_dir,
        logged.digest,
        logged.contract.hash,
        evaluation,
        done.version,
    )

"""A project with a training set, and all of training after that: fit, judge, register."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from tiny_lake import KNOWN_AT, fill

from lockstep.lake import Lake
from lockstep.settings import Settings
from lockstep.training import registry
from lockstep.training.evaluation.document import Evaluation
from lockstep.training.judge import judge
from lockstep.training.register import register
from lockstep.training.train import train
from lockstep.training.training_set import TrainingSet, build_training_set, read_training_set
from lockstep.views import UseCase


@dataclass(frozen=True)
class Project:
    """The tiny lake with a training set in it."""

    settings: Settings
    lake: Lake
    use_case: UseCase
    training_set: TrainingSet

    @classmethod
    def of(cls, settings: Settings, use_case: UseCase) -> "Project":
        """Fill the lake and build the set."""
        lake = fill(settings, use_case)
        return cls(settings, lake, use_case, build_training_set(settings, use_case, known_at=KNOWN_AT))

    @property
    def rows(self) -> pa.Table:
        return read_training_set(self.lake, self.training_set.table)[0]

    def with_model(self, **changes: Any) -> UseCase:
        return replace(self.use_case, model=replace(self.use_case.model, **changes))

    def versions(self) -> list[int]:
        client = registry.open_client(self.settings)
        return sorted(int(v.version) for v in client.search_model_versions("name = 'fraud'"))


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
    version = register(settings, use_case, logged.model, evaluation.hash)
    assert registry.require_model(settings, use_case.model.name, str(version)).digest == logged.digest
    return Trained(
        logged.model,
        logged.model_uri,
        logged.model_dir,
        logged.digest,
        logged.contract.hash,
        evaluation,
        version,
    )

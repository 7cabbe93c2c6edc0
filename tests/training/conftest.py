"""The tiny lake, and the reference use case cut to its size."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from tiny_lake import fill
from whole import Project, Trained, train_whole

from feature_repo.definitions import use_case as fraud
from lockstep.lake import Lake
from lockstep.settings import Settings
from lockstep.views import Ceilings, UseCase, days


@pytest.fixture(scope="session")
def use_case() -> UseCase:
    """The reference use case with a week of payments: 3 days to train on, 1 day apart, 2 days to test on.

    Whatever the model reaches is believed: fraud is what is large there. Nobody is left out: every card has such a payment.
    Rows of views are written by hand, and not what these declare.
    """
    return replace(
        fraud,
        model=replace(
            fraud.model,
            service=fraud.service("fraud_v1"),
            fallback=None,
            estimator=lambda: HistGradientBoostingClassifier(max_iter=20, random_state=0),
            train=days(3),
            gap=days(1),
            test=days(2),
            protocol=replace(fraud.model.protocol, leave_known_out=False),
            ceilings=Ceilings(average_precision=1.0, auc=1.0, one_feature_auc=1.0, not_as_declared=1.0),
        ),
    )


@pytest.fixture(scope="session")
def new_settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Settings]:
    """Settings of an empty home, with a clock that stands at 2018-06-01."""

    def make() -> Settings:
        home = tmp_path_factory.mktemp("home")
        settings = Settings(home=home, clock_file=home / "clock").resolved()
        settings.clock.advance_to(datetime(2018, 6, 1, tzinfo=UTC))
        return settings

    return make


@pytest.fixture(scope="module")
def filled(new_settings: Callable[[], Settings], use_case: UseCase) -> tuple[Settings, Lake]:
    """A lake with payments, labels and both views' rows."""
    settings = new_settings()
    return settings, fill(settings, use_case)


@pytest.fixture(scope="module")
def trained(project: Project) -> Trained:
    """The model of a module's own `project`: fitted, judged and registered."""
    return train_whole(project.settings, project.use_case, project.training_set.table)

"""A use case: one folder that declares everything the library works on, named by a setting."""

import importlib
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from lockstep.errors import BadInput, UseCaseError, nearest
from lockstep.views.declare import Entity, FeatureService, OnDemandView, Source, StoredView

_PROJECT = re.compile(r"[a-z][a-z0-9]*")
_Named = TypeVar("_Named", StoredView, OnDemandView, FeatureService)


@dataclass(frozen=True)
class Thresholds:
    """What a model must reach on the held-out days before it is promoted, and where its scores become decisions.

    Attributes:
        average_precision: the least average precision.
        auc: the least area under the ROC curve.
        decision: the score from which on a row counts as positive.
    """

    average_precision: float
    auc: float
    decision: float = 0.5


@dataclass(frozen=True)
class Ceilings:
    """What no honest model of the use case reaches on the held-out days: above it the training set leaks.

    Attributes:
        average_precision: the most average precision.
        auc: the largest area under the ROC curve.
        one_feature_auc: the largest area under the ROC curve of one feature alone, ranked up or down.
        not_as_declared: the largest share of the rows looked at in a view's table that may differ from what the view declares
            without fitting a leak.
    """

    average_precision: float = 0.98
    auc: float = 0.995
    one_feature_auc: float = 0.95
    not_as_declared: float = 0.0


@dataclass(frozen=True)
class Protocol:
    """How a model is judged on the days held out.

    Attributes:
        entity: the join key whose instances are ranked each day, by their greatest score.
        top: how many of them somebody can look at in a day.
        leave_known_out: whether an instance is left out of the days that begin after one of its positive labels, of an event
            since the first day of training, became known: nobody asks about a card that is already blocked.
        group: the spine's column that says of which kind a positive is; empty if they are all of one kind.
    """

    entity: str
    top: int = 100
    leave_known_out: bool = True
    group: str = ""


@dataclass(frozen=True)
class Words:
    """What reports call things, in the plural.

    Attributes:
        rows: as in "requests".
        positives: rows with label 1.
        entities: what is looked at in a day.
        groups: the kinds of positives; one without a word is called by its number.
    """

    rows: str = "rows"
    positives: str = "positives"
    entities: str = "entities"
    groups: Mapping[int, str] = field(default_factory=dict[int, str])

    def group(self, number: int) -> str:
        """Return what a kind of positives is called."""
        return self.groups.get(number, f"kind {number}")


@dataclass(frozen=True)
class ModelRecipe:
    """How a use case's model is made.

    Attributes:
        name: the registered model's name.
        service: the features it takes.
        spine: SQL over the lake's tables that gives the entity rows: the join keys, `event_timestamp`, the request's
            inputs, and the label; its parameters are `$start`, `$end` (event time, half-open) and `$known_at`.
        spine_tables: the tables the SQL reads, each with the columns it needs.
        requests: SQL over the lake's tables that gives the newest events as requests, the join keys and request inputs of
            up to `$rows` of them; a shadow replay sends them.
        requests_tables: the tables it reads (sources of the use case), each with the columns it needs.
        label: the label's column, 0 or 1.
        label_known_at: the spine's column that says when the label became known.
        estimator: makes an unfitted scikit-learn classifier.
        trusted_types: what the serialized estimator may contain besides skops' own defaults.
        train: how many days of event time are fitted on.
        gap: the label delay, kept free between the two.
        test: how many days are held out, the last ones whose labels are known.
        protocol: how it is judged.
        thresholds: what the model must reach.
        ceilings: what it cannot reach honestly.
        words: what the report of an evaluation calls things.
        fallback: the features of the model that answers while a view whose objective is hard is late: some of the service's,
            none of such a view; None trains no such model.
    """

    name: str
    service: FeatureService
    spine: str
    spine_tables: Mapping[str, tuple[str, ...]]
    requests: str
    requests_tables: Mapping[str, tuple[str, ...]]
    label: str
    label_known_at: str
    estimator: Callable[[], Any]
    trusted_types: tuple[str, ...]
    train: timedelta
    gap: timedelta
    test: timedelta
    protocol: Protocol
    thresholds: Thresholds
    ceilings: Ceilings = Ceilings()
    words: Words = Words()
    fallback: FeatureService | None = None


@dataclass(frozen=True)
class UseCase:
    """Everything one project declares."""

    project: str
    entities: tuple[Entity, ...]
    sources: tuple[Source, ...]
    views: tuple[StoredView, ...]
    on_demand: tuple[OnDemandView, ...]
    services: tuple[FeatureService, ...]
    model: ModelRecipe
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    def view(self, name: str) -> StoredView:
        """Return the stored view of that name.

        Raises:
            BadInput: there is none.
        """
        return _named(self.views, name, "feature view")

    def on_demand_view(self, name: str) -> OnDemandView:
        """Return the on-demand view of that name.

        Raises:
            BadInput: there is none.
        """
        return _named(self.on_demand, name, "on-demand view")

    def service(self, name: str) -> FeatureService:
        """Return the feature service of that name.

        Raises:
            BadInput: there is none.
        """
        return _named(self.services, name, "feature service")


def _named(things: tuple[_Named, ...], name: str, what: str) -> _Named:
    for thing in things:
        if thing.name == name:
            return thing
    raise BadInput(f"there is no {what} {name!r}", hint=nearest(name, (t.name for t in things)))


def load_use_case(package: str) -> UseCase:
    """Import `<package>.definitions` and return its `use_case`.

    Raises:
        UseCaseError: it does not import (with file and line), declares none, or names another project than its package.
    """
    _import_from_here()
    try:
        module = importlib.import_module(f"{package}.definitions")
    except Exception as failure:
        raise UseCaseError(f"the use case {package!r} does not import: {_where(failure, package)}") from failure
    use_case = getattr(module, "use_case", None)
    if not isinstance(use_case, UseCase):
        raise UseCaseError(f"{module.__file__} declares no `use_case = UseCase(...)`")
    if use_case.project != (named := project_of(package)):
        raise UseCaseError(
            f"{module.__file__}: the use case is of project {use_case.project!r}, its package says {named!r}",
            hint="rendered names come from the one, tables and keys from the other: use PROJECT in both",
        )
    return use_case


def project_of(package: str) -> str:
    """Return a use case's project without importing its definitions: `PROJECT` of the package itself.

    Raises:
        UseCaseError: it does not import, has no `PROJECT`, or one that Kubernetes, Iceberg and Feast do not all accept.
    """
    _import_from_here()
    try:
        module = importlib.import_module(package)
    except ImportError as failure:
        raise UseCaseError(
            f"the use case {package!r} does not import: {failure}",
            hint="LOCKSTEP_USE_CASE names a package in this folder or one that is installed",
        ) from failure
    name = getattr(module, "PROJECT", None)
    if not isinstance(name, str):
        raise UseCaseError(f"the use case {package!r} has no PROJECT", hint='write PROJECT = "…" in its __init__.py')
    if not _PROJECT.fullmatch(name):
        raise UseCaseError(
            f"the use case {package!r} has the project {name!r}",
            hint="it names Kubernetes objects, tables and Feast's project: a letter, then letters and digits, lower case",
        )
    return name


def _import_from_here() -> None:
    """Let the folder we are called in be imported from: a console script's own path does not hold it."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)


def _where(failure: Exception, package: str) -> str:
    """Return the failure with the innermost file and line of the use case it passed through."""
    reason = f"{type(failure).__name__}: {failure}"
    if isinstance(failure, SyntaxError):
        return f"{failure.filename}:{failure.lineno}: {reason}"
    frames = [f for f in traceback.extract_tb(failure.__traceback__) if f"/{package.replace('.', '/')}/" in f.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {reason}" if frames else reason

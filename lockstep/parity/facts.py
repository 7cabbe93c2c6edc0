"""What there is to know of served rows before anybody says what it means: the log, the lake, training, the model, the ledger.

It is looked up once for many rows, so that samples of them can be judged again and again.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lockstep.clock import MICROSECOND, to_micros
from lockstep.contract import FeatureContract, View
from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import State
from lockstep.materialize.receipts import Erasures
from lockstep.offline.cut import Cut
from lockstep.online.layout import EntityKeys
from lockstep.parity.drift import drifted_views, functions_of
from lockstep.parity.expect import Looked, TrainingRows, look_up, training_rows
from lockstep.parity.sample import ServedRow
from lockstep.serving.artifact import load_artifact, load_contract
from lockstep.serving.features import Function, build_vectors, complete_inputs
from lockstep.serving.policy import Settled, apply_policy
from lockstep.settings import Settings
from lockstep.training.registry import Registered, versions
from lockstep.views import UseCase

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Facts:
    """What is known of served rows of one contract.

    Attributes:
        contract: what lists the views and features, with their tolerances.
        rows: the served rows.
        looked: by stored view, what the lake says of each row; a view that has drifted is not in it.
        drifted: by view, stored or on demand, why it is not what the contract describes.
        remade: what the logged inputs and stored values make of each row, and whether the policy rejects it; None where an
            on-demand function is another one.
        trained: what training would contain; None where a view has drifted.
        rescored: what the model says to the served vectors; NaN for rows that were rejected. None where no model is asked.
        incarnations: of the online store that the ledger writes to, the last one and those that were lost.
        commits: by view, when the ledger noted each interval as committed, by the interval's number, in microseconds.
        erased: when each erasure was done, in microseconds, by the join key and the hash of its value; one under way is not over.
        most_apart_us: how far two machines' clocks may be apart.
        remake: gives the vectors of rows with their request times moved by so many microseconds.
        others: gives the other versions of the model that rows may have come from.
    """

    contract: FeatureContract
    rows: Sequence[ServedRow]
    looked: Mapping[str, Looked]
    drifted: Mapping[str, str]
    remade: Settled | None
    trained: TrainingRows | None
    rescored: NDArray[np.float64] | None
    incarnations: Sequence[str]
    commits: Mapping[str, Mapping[int, int]]
    erased: Mapping[tuple[str, str], float]
    most_apart_us: int
    remake: Callable[[Sequence[ServedRow], int], NDArray[np.float64]]
    others: Callable[[], Sequence["Other"]]

    @cached_property
    def vectors(self) -> NDArray[np.float64]:
        """The served vectors, rows by features, NaN for null."""
        shape = len(self.rows), len(self.contract.features)
        return np.array([row.vector for row in self.rows], dtype=np.float64).reshape(shape)

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Where each row is, by its name."""
        return {row.name: n for n, row in enumerate(self.rows)}

    def key_sha256(self, join_key: str, value: object) -> str:
        """Return what the receipt of an erasure would say of a key."""
        column = next(c for view in self.contract.views for c in view.join_keys if c.name == join_key)
        return hashlib.sha256(EntityKeys(self.contract.project, [column]).encode({join_key: [value]})[0]).hexdigest()


@dataclass(frozen=True)
class Other:
    """Another version of the model, or the other contract of this one.

    Attributes:
        called: what to call it.
        contract: its contract.
        model_dir: its folder.
        fallback: whether its fallback model is meant.
    """

    called: str
    contract: FeatureContract
    model_dir: Path
    fallback: bool


def gather(
    settings: Settings,
    use_case: UseCase,
    lake: Lake,
    ledger: Ledger,
    contract: FeatureContract,
    rows: Sequence[ServedRow],
    *,
    model: Registered | None = None,
    snapshots: Mapping[str, int] | None = None,
) -> Facts:
    """Look up everything that explaining a difference of these rows takes.

    Args:
        settings: limits, the engine.
        use_case: the definitions that training would use.
        lake: the tables.
        ledger: of the store that was read from.
        contract: the one the rows name.
        rows: served rows.
        model: what scored them; None: scores are not looked at.
        snapshots: by table, what training reads; None: the newest.

    Raises:
        BadInput: a snapshot that a row was read from has expired.
    """
    drifted = drifted_views(use_case, lake, contract)
    looked = {
        view.name: look_up(settings, lake, view, rows, (snapshots or {}).get(view.table))
        for view in contract.views
        if view.name not in drifted
    }
    functions, others_made = functions_of(contract, settings.use_case)
    drifted |= others_made
    cut = Cut(snapshots) if snapshots else None

    def remake(some: Sequence[ServedRow], moved_us: int) -> NDArray[np.float64]:
        return remade(contract, functions, some, moved_us).vectors

    @cache  # each sample of these rows may ask
    def others() -> Sequence[Other]:
        return _other_versions(settings, use_case, model)

    erasures = Erasures.open(settings, contract.project).receipts()
    return Facts(
        contract=contract,
        rows=rows,
        looked=looked,
        drifted=drifted,
        remade=None if others_made else remade(contract, functions, rows),
        trained=None if drifted else training_rows(settings, use_case, contract, rows, cut),
        rescored=None
        if model is None
        else _rescored(model.model_dir, contract, rows, fallback=model.contract != contract),
        incarnations=ledger.incarnations(),
        commits={view.name: _commits(ledger, view.name) for view in contract.views},
        erased={
            (receipt.join_key, receipt.key_sha256): inf if receipt.done_at is None else to_micros(receipt.done_at)
            for receipt in erasures
        },
        most_apart_us=settings.request_time_limit // MICROSECOND,
        remake=remake,
        others=others,
    )


def remade(
    contract: FeatureContract, functions: Mapping[str, Function], rows: Sequence[ServedRow], moved_us: int = 0
) -> Settled:
    """Return what the logged inputs and stored values make, as the transformer does of what it has read.

    The request times are moved by so many microseconds.
    """
    if not rows:
        return Settled(np.empty((0, len(contract.features))), np.empty(0, np.bool_))
    usable: dict[tuple[str, str], list[Any]] = {}
    for view in contract.views:
        usable |= _usable(rows, view)
    inputs = complete_inputs(contract, [row.inputs for row in rows], [row.request_us + moved_us for row in rows])
    return apply_policy(contract, build_vectors(contract, functions, usable, inputs))


def scores_of(model_dir: Path, vectors: NDArray[np.float64], *, fallback: bool = False) -> NDArray[np.float64]:
    """Return what the model, or its fallback, says to these vectors, NaN for null: the way the predictor asks it."""
    if not len(vectors):
        return np.empty(0)
    # scikit-learn's import costs seconds, and a window without rows needs no model.
    from lockstep.threads import one_thread  # noqa: PLC0415

    artifact = load_artifact(model_dir)
    estimator = artifact.fallback if fallback else artifact.estimator
    if estimator is None:
        raise BadInput(f"{model_dir} has no fallback model")
    with one_thread():
        return estimator.predict_proba(vectors)[:, 1]


def _rescored(
    model_dir: Path, contract: FeatureContract, rows: Sequence[ServedRow], *, fallback: bool
) -> NDArray[np.float64]:
    answered = [n for n, row in enumerate(rows) if row.score is not None]
    vectors = np.array([rows[n].vector for n in answered], dtype=np.float64).reshape(-1, len(contract.features))
    scores = np.full(len(rows), np.nan)
    scores[answered] = scores_of(model_dir, vectors, fallback=fallback)
    return scores


def _usable(rows: Sequence[ServedRow], view: View) -> dict[tuple[str, str], list[Any]]:
    """Return what was usable of a view's columns, one value a row: None where the row was missing or stale."""
    reads = (row.views.get(view.name) for row in rows)
    usable = [read.values if read is not None and read.status == "present" else _NOTHING for read in reads]
    return {(view.name, column.name): [values.get(column.name) for values in usable] for column in view.columns}


def _commits(ledger: Ledger, view: str) -> Mapping[int, int]:
    return {
        row.id: to_micros(row.committed_at)
        for row in ledger.materializations(view)
        if row.state is State.COMMITTED and row.committed_at is not None
    }


def _other_versions(settings: Settings, use_case: UseCase, model: Registered | None) -> Sequence[Other]:
    """Return the other registered versions, the newest first, and the fallbacks of all."""
    if model is None:
        return ()
    found: list[Other] = []
    for version, folder in versions(settings, use_case.model.name).items():
        try:
            contract = load_contract(folder)
        except BadInput:  # one of another release: nothing here can have its contract
            continue
        if version != model.version:
            found.append(Other(f"version {version}", contract, folder, fallback=False))
        if contract.fallback is not None:
            found.append(Other(f"the fallback of version {version}", contract.fallback, folder, fallback=True))
    return found

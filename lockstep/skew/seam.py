"""Where the laboratory calls parity: what it needs of it, in the shape that it needs.

A stand-in for `lockstep/parity/`'s own `gather` and `explain` and its seeded samples, over the comparison that is there today.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockstep.clock import from_micros
from lockstep.contract import FeatureContract
from lockstep.errors import SchemaDrift
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.parity.compare import Comparison, Difference, is_mismatch
from lockstep.parity.expect import History, history, training_rows
from lockstep.parity.misread import misread_columns
from lockstep.parity.sample import PER_STRATUM, ServedRow
from lockstep.serving.features import build_vectors, complete_inputs, load_functions
from lockstep.serving.policy import apply_policy
from lockstep.settings import Settings
from lockstep.views.use_case import UseCase

__all__ = ["Facts", "explain", "gather", "is_mismatch", "stratified", "uniform"]


@dataclass(frozen=True)
class Facts:
    """All that is looked up of served rows, once for many samples of them."""

    contract: FeatureContract
    histories: Mapping[str, History]
    training: Mapping[str, Sequence[float | None]]
    remade: Mapping[str, Sequence[float | None]]
    incarnations: Sequence[str]


def gather(
    settings: Settings,
    use_case: UseCase,
    lake: Lake,
    ledger: Ledger,
    contract: FeatureContract,
    rows: Sequence[ServedRow],
) -> Facts:
    """Look up what the lake and training say of served rows.

    Raises:
        SchemaDrift: a view, or its table, is no longer what the contract says.
    """
    for view in contract.views:
        if use_case.view(view.name).definition_hash != view.definition_hash:
            raise SchemaDrift(f"{view.name} has another definition than the contract names")
    functions = load_functions(contract, settings.use_case)
    trained = training_rows(settings, use_case, contract, rows)
    usable = {
        (view.name, column.name): [
            row.views[view.name].values.get(column.name) if row.views[view.name].status == "present" else None
            for row in rows
        ]
        for view in contract.views
        for column in view.columns
    }
    inputs = complete_inputs(contract, [row.inputs for row in rows], [row.request_us for row in rows])
    remade = apply_policy(contract, build_vectors(contract, functions, usable, inputs)).vectors.tolist()
    return Facts(
        contract,
        {view.name: history(settings, lake, view, rows) for view in contract.views},
        {row.name: vector for row, vector in zip(rows, trained.vectors, strict=True)},
        {
            row.name: [None if v != v else v for v in vector]  # noqa: PLR0124 - NaN is unequal to itself
            for row, vector in zip(rows, remade, strict=True)
        },
        ledger.incarnations(),
    )


def explain(facts: Facts, rows: Sequence[ServedRow]) -> Mapping[str, Sequence[Difference]]:
    """Return the differences of a sample, with their causes, by the rows' names."""
    misread = misread_columns(rows, facts.histories)
    comparison = Comparison(
        facts.contract, facts.histories, lambda row: facts.remade[row.name], facts.incarnations, misread
    )
    return {row.name: comparison.row(row, facts.training[row.name]) for row in rows}


def uniform(rows: Sequence[ServedRow], size: int, seed: int) -> tuple[ServedRow, ...]:
    """Return `size` rows, by a hash of the seed and their names."""
    return tuple(sorted(rows, key=lambda row: _rank(row, seed))[:size])


def stratified(rows: Sequence[ServedRow], seed: int) -> tuple[ServedRow, ...]:
    """Return a few rows of every hour, flag and view status."""
    strata: defaultdict[str, list[ServedRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: _rank(row, seed)):
        names = [f"hour {from_micros(row.request_us):%Y-%m-%dT%H}Z"]
        names += [f"flag {flag}" for flag in row.flags]
        names += [f"view {name} {view.status}" for name, view in row.views.items()]
        for name in names:
            if len(strata[name]) < PER_STRATUM:
                strata[name].append(row)
    return tuple({row.name: row for of in strata.values() for row in of}.values())


def _rank(row: ServedRow, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{row.name}".encode(), digest_size=8).digest()

"""Every fault there is for a contract, by name."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, nearest
from lockstep.skew.fault import Fault, Pair
from lockstep.skew.faults import (
    clock,
    columns,
    corruption,
    definitions,
    history,
    keys,
    missing,
    null_to_zero,
    precision,
    previous_row,
    replica,
    stale,
    transform,
    ttl,
    units,
    versions,
    wrong_column,
)
from lockstep.skew.held_out import (
    absolute,
    doubled,
    factor,
    function_time,
    hash_collision,
    inserted_feature,
    int16,
    minus_one,
    moved_store,
    name_clash,
    next_inputs,
    next_score,
    noise,
    old_mapping,
    other_predictor,
    restored_backup,
    row_cache,
    skipped_slot,
    torn_row,
)

_MODULES = (
    stale,
    replica,
    wrong_column,
    units,
    missing,
    null_to_zero,
    clock,
    keys,
    previous_row,
    columns,
    definitions,
    ttl,
    history,
    transform,
    versions,
    corruption,
    precision,
)
_HELD_OUT = (
    old_mapping,
    name_clash,
    hash_collision,
    next_score,
    row_cache,
    restored_backup,
    skipped_slot,
    moved_store,
    torn_row,
    doubled,
    int16,
    minus_one,
    function_time,
    next_inputs,
    absolute,
    inserted_feature,
    other_predictor,
    noise,
    factor,
)


def faults_of(contract: FeatureContract) -> dict[str, Fault]:
    """Return the faults that the classifier was written with, in the order of a table."""
    single = [fault for module in _MODULES for fault in module.variants(contract)]
    return {fault.name: fault for fault in [*single, *_pairs(single)]}


def held_out_of(contract: FeatureContract) -> dict[str, Fault]:
    """Return the faults that it was written without, in the order of a table; see `lockstep/skew/held_out/`."""
    faults = [fault for module in _HELD_OUT for fault in module.variants(contract)]
    return {fault.name: replace(fault, held_out=True) for fault in faults}


def chosen(faults: dict[str, Fault], wanted: Sequence[str]) -> list[Fault]:
    """Return the faults of these names, or of those that begin with one of them; all where none is named.

    Raises:
        BadInput: there is none of that name.
    """
    found = {name for want in wanted for name in faults if name == want or name.startswith(want)}
    for want in wanted:
        if not any(name.startswith(want) for name in faults):
            raise BadInput(f"there is no fault {want!r}", hint=nearest(want, faults))
    return [fault for name, fault in faults.items() if not wanted or name in found]


def _pairs(single: Iterable[Fault]) -> list[Fault]:
    """Return some of them two at a time: what hides the one cause must not hide the other."""
    by_kind = {fault.name.partition(":")[0]: fault for fault in single}
    wanted = [
        ("wrong-column", "missing-5pct"),
        ("other-function", "missing-20pct"),
        ("keys-swapped", "float32-vectors"),
        ("corruption-5pct", "null-to-zero"),
    ]
    return [Pair.of(by_kind[one], by_kind[other]) for one, other in wanted if {one, other} <= by_kind.keys()]

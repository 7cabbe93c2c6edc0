"""The store is asked for another entity: two join keys are swapped, or the keys of two rows of a request."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Entities, Fault


@dataclass(frozen=True, kw_only=True)
class SwappedKeys(Fault):
    """Two join keys of one type take each other's place."""

    one: str
    other: str

    def asked(self, entities: Entities) -> Entities:
        """Swap them."""
        return {**entities, self.one: entities[self.other], self.other: entities[self.one]}


@dataclass(frozen=True, kw_only=True)
class NeighboursKeys(Fault):
    """Each two rows of a request have each other's keys."""

    def asked(self, entities: Entities) -> Entities:
        """Swap the keys of neighbours."""
        return {
            name: [values[min(row ^ 1, len(values) - 1)] for row in range(len(values))]
            for name, values in entities.items()
        }


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield the swap of two keys, if there are two of one type, and that of two rows."""
    by_type: defaultdict[str, list[str]] = defaultdict(list)
    for key in contract.join_keys:
        by_type[key.dtype].append(key.name)
    for names in by_type.values():
        if len(names) > 1:
            yield SwappedKeys(
                name="keys-swapped",
                says=f"the store is asked for {names[0]} by {names[1]} and the other way round",
                causes=frozenset({"wrong_row"}),
                also=frozenset({"missing"}),  # nobody has that key
                one=names[0],
                other=names[1],
            )
            break
    yield NeighboursKeys(
        name="rows-swapped",
        says="each two rows of a request have each other's keys",
        causes=frozenset({"wrong_row"}),
    )

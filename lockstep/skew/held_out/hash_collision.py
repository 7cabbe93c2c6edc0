"""Keys are hashed before they are looked up, and the hash is short: some keys share theirs with another one, whose row they get.

The values are another key's: `wrong_row`. Where that one has no row, nothing is read although the lake has a row of the key that
was asked for: that is `missing`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Entities, Fault, chance

SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class HashCollision(Fault):
    """A share of the keys have the hash of the number before them."""

    keys: tuple[str, ...]

    def asked(self, entities: Entities) -> Entities:
        """Ask for the numbers before them."""
        return {
            **entities,
            **{key: [value - (chance("hash", key, value) < SHARE) for value in entities[key]] for key in self.keys},
        }


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it where keys are whole numbers."""
    keys = tuple(key.name for key in contract.join_keys if key.dtype == "int64")
    if keys:
        yield HashCollision(
            name="hash-collision",
            says=f"{SHARE:.0%} of the keys have the hash of another key, and get its row",
            causes=frozenset({"wrong_row"}),
            also=frozenset({"missing"}),
            keys=keys,
        )

"""Slots, tags and copies of the epoch hash, without a server."""

from dataclasses import dataclass
from hashlib import sha256
from itertools import permutations

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from lockstep.online.cluster import Layout
from lockstep.online.copies import epoch_key
from lockstep.online.epoch import Epochs, Mark, ViewEpoch, combine

SLOTS = 16_384


@dataclass(frozen=True)
class Node:
    name: str


def layout(*bounds: int, names: str = "abcdef") -> Layout:
    """Each node has the slots up to its bound."""
    table: dict[int, list[Node]] = {}
    for name, bound in zip(names, (*bounds, SLOTS), strict=False):
        for slot in range(len(table), bound):
            table[slot] = [Node(name), Node(f"replica of {name}")]
    return Layout.of(table)


def test_the_keys_of_copies_and_what_they_say_of_slots_are_a_format() -> None:
    thirds = layout(5_461, 10_923)
    assert [(s.node, s.tag) for s in thirds.shards] == [("a", "{3}"), ("b", "{1}"), ("c", "{0}")]
    assert thirds.shards[1].slots == sha256(b"5461-10922").hexdigest()[:16]
    assert layout(5, 10, 20, names="abaa").shards[0].slots == sha256(b"0-4,10-16383").hexdigest()[:16]
    assert epoch_key("fraud") == "lockstep:epoch:fraud"
    assert epoch_key("fraud", thirds.shards[0].tag) == "lockstep:epoch:fraud{3}"


@hypothesis.settings(max_examples=15)
@given(st.lists(st.integers(1, SLOTS - 1), unique=True, max_size=5).map(sorted))
def test_a_key_with_its_tag_is_on_the_primary_that_it_names(bounds: list[int]) -> None:
    found = layout(*bounds)
    assert len(found.shards) == len(bounds) + 1
    for number, shard in enumerate(found.shards):
        assert found.owner(epoch_key("fraud", shard.tag).encode()) == number
    key = b"some\x00 key"
    assert found.owner(key) == sum(bound <= key_slot(key) for bound in bounds)


def test_a_moved_slot_changes_what_two_primaries_say_and_a_promotion_nothing() -> None:
    before, after = layout(5_461, 10_923), layout(5_462, 10_923)
    same = [a.slots == b.slots for a, b in zip(before.shards, after.shards, strict=True)]
    assert same == [False, False, True]
    promoted = layout(5_461, 10_923, names="axc")
    assert [s.slots for s in promoted.shards] == [s.slots for s in before.shards]
    assert [s.node for s in promoted.shards] == ["a", "x", "c"]


def mark(interval: int) -> Mark:
    return Mark(interval, interval, interval, interval)


ONE, TWO, THREE = mark(1), mark(2), mark(3)


@pytest.mark.parametrize(
    ("copies", "together"),
    [
        ([ViewEpoch(ONE), ViewEpoch(ONE), ViewEpoch(ONE)], ViewEpoch(ONE)),
        ([ViewEpoch(ONE, TWO), ViewEpoch(ONE), ViewEpoch(ONE)], ViewEpoch(ONE, TWO)),
        ([ViewEpoch(TWO), ViewEpoch(ONE, TWO), ViewEpoch(TWO)], ViewEpoch(ONE, TWO)),
        ([ViewEpoch(TWO, THREE), ViewEpoch(ONE, TWO), ViewEpoch(TWO)], ViewEpoch(ONE, THREE)),
        ([ViewEpoch(TWO), ViewEpoch(ONE), ViewEpoch(TWO)], ViewEpoch(ONE, TWO)),
        ([ViewEpoch(TWO), ViewEpoch(), ViewEpoch(TWO)], ViewEpoch(None, TWO)),
        ([ViewEpoch(TWO), None, ViewEpoch(TWO)], ViewEpoch(None, TWO)),
    ],
)
def test_together_copies_say_the_oldest_that_is_committed_and_the_newest_that_may_be_there(
    copies: list[ViewEpoch | None], together: ViewEpoch
) -> None:
    for order in permutations(copies):
        found = combine([Epochs("i", {"spend": copy} if copy else {}) for copy in order])
        assert found == Epochs("i", {"spend": together})


def test_copies_of_different_names_have_none_together() -> None:
    assert combine([Epochs("i", {}), Epochs("j", {})]).incarnation is None
    assert combine([Epochs("i", {}), Epochs(None, {})]).incarnation is None
    assert combine([Epochs("i", {}), Epochs("i", {})]).incarnation == "i"

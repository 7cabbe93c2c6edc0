"""The epoch hash: who may move it where, and that it is read as it was written."""

from collections.abc import Callable
from itertools import permutations

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import SchemaDrift
from lockstep.online.copies import epoch_key
from lockstep.online.epoch import Epochs, EpochStore, Mark, ViewEpoch, parse

LARGE = (1 << 63) - 1


def mark(interval: int) -> Mark:
    return Mark(interval=interval, snapshot_id=LARGE - interval, sequence=interval * 3, watermark_us=interval * 7)


@pytest.fixture
def epochs(store: redis.Redis) -> EpochStore:
    return EpochStore(store, "fraud")


def test_a_store_that_nothing_was_written_to_says_nothing(epochs: EpochStore) -> None:
    assert epochs.read() == Epochs(None, {})


def test_an_incarnation_is_given_once_and_lost_with_the_store(epochs: EpochStore, store: redis.Redis) -> None:
    first = epochs.ensure_incarnation()

    assert len(first) == 32
    assert epochs.ensure_incarnation() == first == epochs.read().incarnation
    store.flushall()
    assert epochs.read().incarnation is None
    assert epochs.ensure_incarnation() != first


def test_an_interval_goes_from_writing_to_committed(epochs: EpochStore) -> None:
    epochs.set_writing("spend", mark(1))
    assert epochs.read().views == {"spend": ViewEpoch(None, mark(1))}
    epochs.set_committed("spend", mark(1))
    assert epochs.read().views == {"spend": ViewEpoch(mark(1), None)}
    epochs.set_writing("spend", mark(2))
    epochs.set_writing("risk", mark(3))
    assert epochs.read().views == {"spend": ViewEpoch(mark(1), mark(2)), "risk": ViewEpoch(None, mark(3))}


def test_a_commit_that_comes_late_does_not_turn_back(epochs: EpochStore) -> None:
    epochs.restore("spend", ViewEpoch(mark(2)))
    epochs.set_writing("spend", mark(3))
    epochs.set_committed("spend", mark(1))
    epochs.set_committed("spend", mark(2))

    assert epochs.read().views["spend"] == ViewEpoch(mark(2), mark(3))


def test_a_planner_that_comes_late_does_not_leave_writing_behind(epochs: EpochStore) -> None:
    epochs.restore("spend", ViewEpoch(mark(2)))
    epochs.set_writing("spend", mark(2))

    assert epochs.read().views["spend"] == ViewEpoch(mark(2), None)


def test_every_order_of_commits_ends_at_the_last_interval(epochs: EpochStore) -> None:
    for number, order in enumerate(permutations([1, 2, 3])):
        epochs.set_writing(f"v{number}", mark(3))
        for interval in order:
            assert epochs.set_committed(f"v{number}", mark(interval))

    assert set(epochs.read().views.values()) == {ViewEpoch(mark(3), None)}


def test_a_store_that_does_not_know_of_the_writing_is_told_of_no_commit(
    epochs: EpochStore, store: redis.Redis
) -> None:
    epochs.restore("spend", ViewEpoch(mark(1), mark(2)))
    assert not epochs.set_committed("spend", mark(3))
    assert epochs.read().views == {"spend": ViewEpoch(mark(1), mark(2))}
    store.flushall()
    assert not epochs.set_committed("spend", mark(2))
    assert epochs.read() == Epochs(None, {})


def test_what_was_said_of_a_view_before_the_store_had_a_name_is_forgotten(epochs: EpochStore) -> None:
    epochs.restore("spend", ViewEpoch(mark(1)))
    epochs.ensure_incarnation()
    assert epochs.read().views == {}


def test_committing_again_what_is_committed_ends_its_writing(epochs: EpochStore) -> None:
    epochs.restore("spend", ViewEpoch(mark(2), mark(2)))
    epochs.set_committed("spend", mark(2))

    assert epochs.read().views["spend"] == ViewEpoch(mark(2), None)


@pytest.mark.parametrize("fields", [{b"\xff": b""}, {b"incarnation": b"\xff"}])
def test_bytes_that_are_no_text_are_named(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(SchemaDrift, match="the epoch hash holds what is no text"):
        parse(fields)


def test_restoring_sets_a_view_back_even_from_what_cannot_be_read(epochs: EpochStore, store: redis.Redis) -> None:
    store.hset(epoch_key("fraud"), "view:spend", "{}")
    with pytest.raises(SchemaDrift, match="view:spend"):
        epochs.read()

    epochs.restore("spend", ViewEpoch(mark(1), mark(2)))

    assert epochs.read().views["spend"] == ViewEpoch(mark(1), mark(2))


def test_a_change_in_between_is_seen_and_kept(
    epochs: EpochStore, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs.restore("spend", ViewEpoch(mark(1), mark(2)))
    read: Callable[..., bytes | None] = store.hget
    interventions = [mark(5)]

    def read_then_be_overtaken(key: str, field: str) -> bytes | None:
        found = read(key, field)
        if interventions:
            EpochStore(store, "fraud").restore("spend", ViewEpoch(mark(1), interventions.pop()))
        return found

    monkeypatch.setattr(store, "hget", read_then_be_overtaken)
    epochs.set_committed("spend", mark(2))

    assert epochs.read().views["spend"] == ViewEpoch(mark(2), mark(5))


MARKS = st.builds(Mark, *[st.integers(-(1 << 63), LARGE)] * 4)
VIEW_EPOCHS = st.builds(ViewEpoch, st.none() | MARKS, st.none() | MARKS)
EPOCHS = st.builds(Epochs, st.none() | st.text("0123456789abcdef"), st.dictionaries(st.text(), VIEW_EPOCHS))


@given(EPOCHS)
def test_a_reading_is_the_same_after_json(epochs: Epochs) -> None:
    assert Epochs.from_json(epochs.to_json()) == epochs
    assert Epochs.from_json(epochs.to_json().decode()) == epochs


def test_the_json_of_a_reading_is_canonical() -> None:
    one, two = ViewEpoch(mark(1), None), ViewEpoch(None, mark(2))

    assert Epochs("ab", {"x": one, "y": two}).to_json() == Epochs("ab", {"y": two, "x": one}).to_json()
    assert Epochs("ab", {"x": ViewEpoch(Mark(1, 2, 3, 4), None)}).to_json() == (
        b'{"incarnation":"ab","views":{"x":{"committed":{"interval":1,"sequence":3,"snapshot_id":2,"watermark_us":4},'
        b'"writing":null}}}'
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"incarnation":null,"views":{"x":{"committed":{"interval":1}}}}'])
def test_json_that_is_no_reading_is_refused(text: str) -> None:
    with pytest.raises(SchemaDrift, match="no reading of the epoch hash"):
        Epochs.from_json(text)


def test_fields_of_a_later_release_are_left_alone() -> None:
    assert parse({b"incarnation": b"ab", b"primary": b"x"}) == Epochs("ab", {})

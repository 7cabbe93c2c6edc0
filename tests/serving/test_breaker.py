"""The circuit breaker against a plain description of what it does, over whatever may happen."""

import asyncio
import math
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from prometheus_client import REGISTRY

from lockstep.errors import SchemaDrift
from lockstep.serving.breaker import CLOSED, HALF_OPEN, OPEN, Breaker
from lockstep.serving.refusal import Reason, Unavailable

MOST, PAUSE = 3, 2.0
DOWN = Unavailable(Reason.STORE_UNAVAILABLE, "down")
NO_FAULT_OF_ITS = Unavailable(Reason.STORE_TIMEOUT, "down", counts=False)


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def breaker_of(time: Time, dependency: str = "thing") -> Breaker:
    return Breaker(dependency, Reason.STORE_CIRCUIT_OPEN, MOST, timedelta(seconds=PAUSE), time)


def begin(breaker: Breaker) -> AbstractContextManager[None]:
    call = breaker.call()
    call.__enter__()
    return call


def end(call: AbstractContextManager[None], failure: BaseException | None = None) -> None:
    call.__exit__(type(failure) if failure else None, failure, None)


def fail(breaker: Breaker, times: int = 1, failure: Unavailable = DOWN) -> None:
    for _ in range(times):
        with pytest.raises(Unavailable, match="down"), breaker.call():
            raise failure


def told(dependency: str) -> set[str]:
    """Which states the metric says that it is in."""
    sample = {
        state: REGISTRY.get_sample_value("lockstep_circuit", {"dependency": dependency, "lockstep_circuit": state})
        for state in (CLOSED, HALF_OPEN, OPEN)
    }
    return {state for state, value in sample.items() if value == 1.0}


class Naive:
    """What a breaker does, said plainly.

    Attributes:
        running: how many counted failures the last ones were.
        opened: when it opened; None while all are let through.
        asked: it has let one through since.
        probe: the call that decides, and when it began.
    """

    def __init__(self) -> None:
        self.running, self.opened, self.asked, self.probe, self.began = 0, None, False, None, 0.0

    @property
    def waits_until(self) -> float:
        """When the next one may ask; a call that has not come back after a pause keeps nobody out."""
        return max(self.opened or 0.0, self.began if self.probe else 0.0) + PAUSE

    def admits(self, now: float) -> bool:
        return self.opened is None or now >= self.waits_until

    def begin(self, call: object, now: float) -> None:
        if self.opened is not None:
            self.probe, self.began, self.asked = call, now, True

    def end(self, call: object, outcome: str, now: float) -> None:
        decides, self.probe = call is self.probe, None if call is self.probe else self.probe
        if outcome == "success" and (decides or self.opened is None):
            self.running, self.opened, self.asked = 0, None, False
        if outcome == "failure" and self.opened is None:
            self.running += 1
        if outcome == "failure" and (decides or (self.opened is None and self.running == MOST)):
            self.opened, self.asked = now, False

    @property
    def state(self) -> str:
        return CLOSED if self.opened is None else HALF_OPEN if self.asked else OPEN


class AnyOrder(RuleBasedStateMachine):
    """Calls that begin and end in any order, while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.naive = Time(), Naive()
        self.breaker = breaker_of(self.time, "anything")
        self.calls: list[AbstractContextManager[None]] = []

    @rule()
    def begins(self) -> None:
        if self.naive.admits(self.time.now):
            call = begin(self.breaker)
            self.naive.begin(call, self.time.now)
            self.calls.append(call)
            return
        with pytest.raises(Unavailable) as refused:
            begin(self.breaker)
        assert refused.value.reason is Reason.STORE_CIRCUIT_OPEN
        assert refused.value.retry_after == math.ceil(self.naive.waits_until - self.time.now)

    @precondition(lambda self: self.calls)
    @rule(
        which=st.integers(min_value=0),
        outcome=st.sampled_from((None, DOWN, DOWN, NO_FAULT_OF_ITS, asyncio.CancelledError(), KeyError())),
    )
    def ends(self, which: int, outcome: BaseException | None) -> None:
        call = self.calls.pop(which % len(self.calls))
        end(call, outcome)
        what = "failure" if outcome is DOWN else "nothing" if outcome else "success"
        self.naive.end(call, what, self.time.now)

    @rule(quarters=st.integers(1, 9))
    def passes(self, quarters: int) -> None:
        self.time.now += quarters / 4

    @invariant()
    def both_are_alike(self) -> None:
        assert self.breaker.state == self.naive.state
        assert told("anything") == {self.naive.state}

    def teardown(self) -> None:
        for call in self.calls:
            end(call)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_so_many_failures_running_open_it_and_a_success_in_between_starts_again(time: Time) -> None:
    breaker = breaker_of(time)
    fail(breaker, MOST - 1)
    end(begin(breaker))
    fail(breaker, MOST - 1)
    assert breaker.state == CLOSED

    fail(breaker)

    assert breaker.state == OPEN
    with pytest.raises(Unavailable, match="the thing has failed 3 times running and is left alone for a moment"):
        begin(breaker)


def test_after_the_pause_exactly_one_asks_and_its_success_lets_all_through(time: Time) -> None:
    breaker = breaker_of(time)
    fail(breaker, MOST)
    time.now += PAUSE - 0.25
    with pytest.raises(Unavailable):
        begin(breaker)
    time.now += 0.25

    probe = begin(breaker)

    assert breaker.state == HALF_OPEN
    for _ in range(3):
        with pytest.raises(Unavailable):
            begin(breaker)
    end(probe)
    assert breaker.state == CLOSED
    for call in [begin(breaker) for _ in range(3)]:
        end(call)


def test_the_failure_of_the_one_that_asks_opens_it_for_another_pause(time: Time) -> None:
    breaker = breaker_of(time)
    fail(breaker, MOST)
    time.now += PAUSE
    fail(breaker)

    assert breaker.state == OPEN
    time.now += PAUSE - 0.25
    with pytest.raises(Unavailable):
        begin(breaker)
    time.now += 0.25
    end(begin(breaker))
    assert breaker.state == CLOSED


def test_a_success_of_one_that_was_let_through_before_does_not_close_it(time: Time) -> None:
    breaker = breaker_of(time)
    late, later = begin(breaker), begin(breaker)
    fail(breaker, MOST)

    end(late)
    assert breaker.state == OPEN
    time.now += PAUSE
    probe = begin(breaker)
    end(later)

    assert breaker.state == HALF_OPEN
    with pytest.raises(Unavailable):  # and the one that asks is still the only one
        begin(breaker)
    end(probe)


@pytest.mark.parametrize("outcome", [asyncio.CancelledError(), SchemaDrift("another layout"), KeyError("x")])
def test_what_is_no_outage_neither_opens_nor_closes_it_and_the_next_one_asks(time: Time, outcome: Any) -> None:
    breaker = breaker_of(time)
    for _ in range(MOST * 2):
        with pytest.raises(type(outcome)), breaker.call():
            raise outcome
    assert breaker.state == CLOSED
    fail(breaker, MOST)
    time.now += PAUSE
    with pytest.raises(type(outcome)), breaker.call():
        raise outcome

    assert breaker.state == HALF_OPEN
    end(begin(breaker))
    assert breaker.state == CLOSED


def test_failures_of_who_asks_for_less_time_than_usual_do_not_open_it(time: Time) -> None:
    breaker = breaker_of(time)

    fail(breaker, MOST * 2, NO_FAULT_OF_ITS)

    assert breaker.state == CLOSED


def test_who_asks_for_less_time_does_not_keep_it_open_either(time: Time) -> None:
    breaker = breaker_of(time)
    fail(breaker, MOST)
    time.now += PAUSE
    fail(breaker, 1, NO_FAULT_OF_ITS)

    end(begin(breaker))

    assert breaker.state == CLOSED


def test_one_that_asks_and_does_not_come_back_keeps_the_others_out_for_a_pause_alone(time: Time) -> None:
    breaker = breaker_of(time)
    fail(breaker, MOST)
    time.now += PAUSE
    slow = begin(breaker)
    time.now += PAUSE

    end(begin(breaker))
    assert breaker.state == CLOSED
    fail(breaker, MOST)
    end(slow)

    assert breaker.state == OPEN


def test_why_it_opened_is_in_the_log_with_what_no_caller_is_told(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    down = Unavailable(Reason.STORE_UNAVAILABLE, "down", detail="Error 111 connecting to 10.0.0.7:6379")

    fail(breaker_of(time), MOST, down)

    assert [record.getMessage() for record in caplog.records] == [
        "the circuit of the thing is open: Error 111 connecting to 10.0.0.7:6379"
    ]


def test_one_thing_s_circuit_says_nothing_of_another_s(time: Time) -> None:
    store, predictor = breaker_of(time, "store of this test"), breaker_of(time, "predictor of this test")

    fail(store, MOST)

    assert (store.state, predictor.state) == (OPEN, CLOSED)
    assert (told("store of this test"), told("predictor of this test")) == ({OPEN}, {CLOSED})

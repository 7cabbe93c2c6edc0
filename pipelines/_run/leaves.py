"""Templates without tasks: a script, which is tried again as its template says, and a wait for an approval."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from pipelines._manifest.expressions import Scope
from pipelines._run.approvals import NOBODY, Ask, answer, questions
from pipelines._run.crew import Crew
from pipelines._run.pod import make_pod
from pipelines._run.pods import Pods
from pipelines._run.record import Record
from pipelines._run.results import ATTEMPT, BAD, ERROR, FAILED, POD, SUCCEEDED, SUSPENSION, Outcome
from pipelines._run.retries import Attempt, read_retries
from pipelines._run.turns import Turns


@dataclass(frozen=True)
class Terms:
    """How a run is run, which its manifest does not say.

    Attributes:
        retry_wait: seconds that a retry waits at most, whatever its back-off is.
        approvals: values that suspended nodes wait for, by node or `node.parameter`.
        ask: asks a person for such a value; None where nobody is there.
    """

    retry_wait: float = 1.0
    approvals: Mapping[str, str] = field(default_factory=dict)
    ask: Ask | None = None


@dataclass(frozen=True)
class _Tried:
    """One attempt at a script: when it began, how it ended, also as a retry strategy sees it, and what is told of it."""

    since: float
    outcome: Outcome
    as_argo: Attempt
    more: Mapping[str, Any]


class Leaves:
    """Runs scripts and waits for approvals.

    Args:
        scratch: takes what scripts write.
        logs_dir: takes what they say.
        record: told of each attempt and each node.
        crew: whose main thread can ask a person.
        pods: where scripts run.
        turns: interrupts the wait before a retry when the run is ended.
        terms: how retries and approvals are dealt with.
    """

    def __init__(
        self, scratch: Path, logs_dir: Path, *, record: Record, crew: Crew, pods: Pods, turns: Turns, terms: Terms
    ) -> None:
        self._scratch, self._logs_dir = scratch, logs_dir
        self._record, self._crew, self._pods, self._turns, self._terms = record, crew, pods, turns, terms
        self._numbers = count(1)

    def script(
        self, template: Mapping[str, Any], label: str, name: str, inputs: Mapping[str, str], scope: Scope
    ) -> Outcome:
        """Run a script, and again as its retry strategy has it; with the attempts as nodes of their own if there are several."""
        retries = read_retries(template.get("retryStrategy"))
        tried = self._attempt(template, name, inputs, scope)
        first, attempts = tried.since, 1
        while tried.outcome.phase in BAD and retries.again(tried.as_argo, attempts):
            self._record.end(
                f"{name}({attempts - 1})", label, tried.outcome, since=tried.since, kind=ATTEMPT, **tried.more
            )
            self._turns.pause(min(retries.wait(attempts), self._terms.retry_wait))
            tried = self._attempt(template, f"{name}({attempts})", inputs, scope)
            attempts += 1
        if attempts > 1:
            self._record.end(
                f"{name}({attempts - 1})", label, tried.outcome, since=tried.since, kind=ATTEMPT, **tried.more
            )
        return self._record.end(name, label, tried.outcome, since=first, kind=POD, **tried.more)

    def _attempt(self, template: Mapping[str, Any], name: str, inputs: Mapping[str, str], scope: Scope) -> _Tried:
        # one that is drawn at a time: `next` of a counter cannot be interrupted by another thread
        unit = f"{next(self._numbers):03d}-{re.sub('[^A-Za-z0-9.-]+', '_', name)[:100]}"
        log = self._logs_dir / f"{unit}.log"
        pod = make_pod(template, inputs, scope, folder=self._scratch / unit, log=log)
        begun: list[float] = []

        def begin() -> None:
            begun.append(time.perf_counter())
            self._record.start(name)

        ended = self._pods.run(pod, begin)
        missing = sorted({o["name"] for o in pod.outputs} - set(ended.outputs))
        tried = partial(_Tried, begun[0], more={"message": ended.message, "log": log})
        if ended.exit_code is None:
            return tried(Outcome(ERROR), Attempt(ERROR, None))
        if ended.exit_code:
            return tried(Outcome(FAILED, ended.exit_code, ended.outputs), Attempt(FAILED, ended.exit_code))
        if missing:
            more = {"message": f"did not write its output {', '.join(missing)}", "log": log}
            return tried(Outcome(ERROR, 2, ended.outputs), Attempt(ERROR, 0), more=more)
        return tried(Outcome(SUCCEEDED, 0, ended.outputs), Attempt(SUCCEEDED, 0))

    def suspend(self, template: Mapping[str, Any], label: str, name: str, inputs: Mapping[str, str]) -> Outcome:
        """Wait for what a suspended node asks for; where nobody can be asked and nothing was given, it is refused."""
        since, outputs = time.perf_counter(), dict[str, str]()
        asked, ask = list(questions(template, name, inputs)), self._terms.ask
        for question in asked:
            value = answer(question, self._terms.approvals, alone=len(asked) == 1)
            if value is None and ask is not None:
                self._record.start(name)
                value = self._crew.in_main(lambda: ask(question))  # noqa: B023 - it is answered within the loop
            if value is None:
                message = f"nobody is here to decide: run it at a terminal, or give {question.option}"
                refused = Outcome(FAILED, NOBODY)
                return self._record.end(name, label, refused, since=since, message=message, kind=SUSPENSION)
            outputs[question.parameter] = value
        return self._record.end(name, label, Outcome(SUCCEEDED, 0, outputs), since=since, kind=SUSPENSION)

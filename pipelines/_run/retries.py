"""When a script is tried again, and after how long: Argo's `retryStrategy`, as far as ours uses it.

The expression is read when the manifest is, so that one that is not understood is refused before anything runs.
https://argo-workflows.readthedocs.io/en/latest/retries/
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines._manifest.expressions import ExpressionError

Condition = Callable[["Attempt"], bool]

_POLICIES: Mapping[str, tuple[str, ...]] = {
    "Always": ("Failed", "Error"),
    "OnFailure": ("Failed",),
    "OnError": ("Error",),
}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_TOKENS = re.compile(
    r"\s*(?:(?P<op>&&|\|\||==|!=|\[|\]|,|not\s+in\b|in\b)|(?P<status>lastRetry\.status)"
    r"|(?P<number>asInt\(\s*lastRetry\.exitCode\s*\))|(?P<code>lastRetry\.exitCode)"
    r"|(?P<text>'[^'\\]*'|\"[^\"\\]*\")|(?P<integer>-?\d+))"
)


@dataclass(frozen=True)
class Attempt:
    """How an attempt ended; an exit code it does not have is -1, as in Argo."""

    status: str
    exit_code: int | None

    @property
    def code(self) -> int:
        """Its exit code."""
        return -1 if self.exit_code is None else self.exit_code


@dataclass(frozen=True)
class Retries:
    """A retry strategy.

    Attributes:
        limit: how often it is tried again, at most: one less than there are attempts.
        phases: the phases after which it is.
        condition: what must hold as well.
        duration: seconds before the first retry.
        factor: by which that grows with each.
        longest: which it does not exceed, in seconds.
    """

    limit: int = 0
    phases: tuple[str, ...] = ()
    condition: Condition = lambda _: True
    duration: float = 0.0
    factor: int = 1
    longest: float = math.inf

    def again(self, ended: Attempt, attempts: int) -> bool:
        """Tell whether there is another attempt after so many."""
        return ended.status in self.phases and attempts <= self.limit and self.condition(ended)

    def wait(self, attempts: int) -> float:
        """Return the seconds to wait after so many attempts."""
        return min(self.duration * float(self.factor) ** min(attempts - 1, 64), self.longest)


def read_retries(strategy: Mapping[str, Any] | None) -> Retries:
    """Return what a template's `retryStrategy` says; without one there are no retries.

    Raises:
        ExpressionError: its expression or one of its numbers is not understood here.
    """
    if strategy is None:
        return Retries()
    if "limit" not in strategy:
        raise ExpressionError("a retryStrategy without a limit, which would try for ever")
    expression = strategy.get("expression", "")
    # Argo >= 3.5: with an expression alone it is the expression that decides
    policy = strategy.get("retryPolicy") or ("Always" if expression else "OnFailure")
    if policy not in _POLICIES:
        raise ExpressionError(f"retryPolicy {policy}")
    backoff = strategy.get("backoff")
    if backoff is not None and not backoff.get("duration"):
        raise ExpressionError("a backoff without a duration, with which Argo ends the run at the first retry")
    backoff = backoff or {}
    return Retries(
        limit=_count("limit", strategy["limit"]),
        phases=_POLICIES[policy],
        condition=_Condition(expression).read() if expression else lambda _: True,
        duration=_duration(backoff.get("duration", "0")),
        factor=_count("factor", backoff.get("factor") or 1) or 1,
        longest=_duration(backoff["cap"]) if backoff.get("cap") else math.inf,
    )


def _count(name: str, value: Any) -> int:
    if not re.fullmatch(r"\d+", str(value)):
        raise ExpressionError(f"the {name} {value!r}")
    return int(value)


def _duration(text: Any) -> float:
    """Read Go's durations (`1m30s`), and seconds without a unit."""
    if re.fullmatch(r"\d+", str(text)):
        return float(text)
    if not re.fullmatch(f"(?:{_DURATION.pattern})+", str(text)):
        raise ExpressionError(f"the duration {text!r}")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(str(text)))


# -- the expression ----------------------------------------------------------------------------------------------------

Value = Callable[[Attempt], str | int]


class _Condition:
    """Recursive descent over `||`, `&&`, `== != in not in`; both sides of a comparison are texts, or both numbers."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokens(text))

    def _tokens(self, text: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKENS.match(text, position)
            if match is None:
                raise self._unreadable(text[position:].strip())
            kind = str(match.lastgroup)
            found.append((kind, " ".join(match[kind].split()) if kind == "op" else match[kind]))
            position = match.end()
        return found

    def read(self) -> Condition:
        condition = self._any()
        if self.tokens:
            raise self._unreadable(self.tokens[0][1])
        return condition

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._take("||"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda attempt: any(part(attempt) for part in parts)

    def _all(self) -> Condition:
        parts = [self._comparison()]
        while self._take("&&"):
            parts.append(self._comparison())
        return parts[0] if len(parts) == 1 else lambda attempt: all(part(attempt) for part in parts)

    def _comparison(self) -> Condition:
        kind, left = self._value()
        operation = self.tokens.pop(0)[1] if self.tokens else "its end"
        if operation in ("==", "!="):
            _, right = self._value(kind)
            return lambda attempt: (left(attempt) == right(attempt)) is (operation == "==")
        if operation in ("in", "not in"):
            values = self._list(kind)
            return lambda attempt: (left(attempt) in values) is (operation == "in")
        raise self._unreadable(operation)

    def _list(self, kind: str) -> set[str | int]:
        if not self._take("["):
            raise self._unreadable(self.tokens[0][1] if self.tokens else "its end")
        values: set[str | int] = set()
        while not self._take("]"):
            if values and not self._take(","):
                raise self._unreadable(self.tokens[0][1] if self.tokens else "its end")
            values.add(self._literal(kind))
        return values

    def _literal(self, kind: str) -> str | int:
        token = self.tokens[0] if self.tokens else ("", "its end")
        if token[0] not in ("text", "integer"):
            raise self._unreadable(token[1])
        return self._value(kind)[1](Attempt("", None))

    def _value(self, wanted: str = "") -> tuple[str, Value]:
        if not self.tokens:
            raise self._unreadable("its end")
        lexeme, text = self.tokens.pop(0)
        values: dict[str, tuple[str, Value]] = {
            "status": ("text", lambda attempt: attempt.status),
            "code": ("text", lambda attempt: str(attempt.code)),
            "number": ("number", lambda attempt: attempt.code),
            "text": ("text", lambda _: text[1:-1]),
            "integer": ("number", lambda _: int(text)),
        }
        if lexeme not in values or wanted not in ("", values[lexeme][0]):
            raise self._unreadable(text)
        return values[lexeme]

    def _take(self, op: str) -> bool:
        taken = bool(self.tokens) and self.tokens[0] == ("op", op)
        if taken:
            del self.tokens[0]
        return taken

    def _unreadable(self, at: str) -> ExpressionError:
        return ExpressionError(f"the retry expression {self.text!r}, from {at!r} on")

"""The little languages inside rendered YAML: `{{tags}}`, `depends`, `when`, and what a fan-out does to values.

Values never become syntax here: an expression is read before its tags are replaced. Argo replaces first, so what would
change an expression's meaning there is refused here. Its `when` is govaluate's language, in which `5-3` is 2, `0x10` is 16, `in`
is an operator and '2018-07-01' a time: what is read here means the same there, and the rest is an error.
https://argo-workflows.readthedocs.io/en/latest/variables/ · https://argo-workflows.readthedocs.io/en/latest/enhanced-depends-logic/
"""

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TAG = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
RESULTS = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted", "AnySucceeded", "AllFailed")

_EXACT = 2**53
_DEPENDS = re.compile(r"\s*(?:(?P<op>&&|\|\||!|\(|\))|(?P<word>[A-Za-z0-9_-]+(?:\.[A-Za-z]+)?))")
_WHEN = re.compile(
    # Signs that touch are one for govaluate, which knows no `&&!`; nor does it deny twice.
    r"\s*(?:(?P<op>(?:&&|\|\||==|!=|>=|<=|>|<)(?![=!<>&|])|!(?!\s*[=!<>&|])|\(|\))|(?P<quoted>'[^']*'|\"[^\"]*\")"
    r"|(?P<word>(?:\{\{[^{}]+\}\}|[^\s(){}=!<>&|'\"])+))"
)
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_KEYWORDS = ("in", "IN")
_TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}([ T][0-9:.,+Z-]*)?|\d{1,2}:\d{2} *[AP]M|[a-z]{3} +[a-z]{3} +\d{1,2} .*\d{4}",
    re.IGNORECASE | re.DOTALL,
)
"""Of govaluate's fourteen formats (`tryParseTime`) what each begins like: a text that is none of them may be refused, too."""

_UNKNOWN = object()
"""The value of an operand with a tag in it, as long as nothing runs."""
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


class ExpressionError(Exception):
    """A node's expression cannot be read or has no value; Argo marks such a node Error."""


class AbsentError(ExpressionError):
    """A tag names an output of a task that was skipped or omitted."""


Scope = Mapping[str, str | None]
"""What each tag stands for; None for an output of a task that did not run."""


def tags(text: str) -> list[str]:
    """Return the names inside the `{{…}}` of a text, in order."""
    return TAG.findall(text)


def substitute(text: str, scope: Scope) -> str:
    """Replace each tag once: what a value contains is not read again.

    Raises:
        AbsentError: a tag's task did not run.
        ExpressionError: a tag names nothing.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in scope:
            raise ExpressionError(f"{match[0]} names nothing here")
        found = scope[match[1]]
        if found is None:
            raise AbsentError(f"{match[0]} has no value: its task did not run")
        return found

    return TAG.sub(value, text)


# -- conditions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operand:
    """One term of `depends`: a task and the result it must have; no result is Argo's Succeeded, Skipped or Daemoned."""

    task: str
    result: str | None


def depends_on(depends: str) -> list[Operand]:
    """Return the terms of a `depends` expression.

    Raises:
        ExpressionError: it is not one.
    """
    found: list[Operand] = []

    def collect(kind: str, text: str) -> bool:
        found.append(_operand(kind, text))
        return True

    if depends:
        _Reader(depends, _DEPENDS, collect).value()
    return found


def evaluate_depends(depends: str, holds: Callable[[Operand], bool]) -> bool:
    """Return whether a `depends` expression is true, given which of its terms are."""
    return not depends or _Reader(depends, _DEPENDS, lambda kind, text: holds(_operand(kind, text))).value()


def evaluate_when(when: str, scope: Scope) -> bool:
    """Return the value of a `when` expression: comparisons of words, quoted texts and numbers under `&& || ! ()`.

    Raises:
        ExpressionError: it cannot be read, or a value would be read as something else by Argo.
    """
    return _Reader(when, _WHEN, lambda kind, text: _literal(kind, text, substitute(text, scope))).value()


def check_when(when: str) -> None:
    """Read a `when` expression without the values of its tags.

    Raises:
        ExpressionError: it cannot be read, or something in it would be read as something else by Argo.
    """

    def value(kind: str, text: str) -> Any:
        if not tags(text):
            return _literal(kind, text, text)
        # Around a tag a word may have what a word has, and a quoted text anything that is no quote.
        _literal(kind, text, TAG.sub("x", text))
        return _UNKNOWN

    _Reader(when, _WHEN, value).value()


def _literal(kind: str, text: str, replaced: str) -> str | float | bool:
    """Return what govaluate makes of an operand, if that is what it looks like."""
    stands_for = "" if text == replaced else f" stands for {replaced!r}"
    if kind == "quoted":
        inner = replaced[1:-1]
        if re.search(r"['\"\\\n]", inner):
            raise ExpressionError(f"when: {text} stands for {inner!r}, which Argo would read as syntax")
        if _TIME.fullmatch(inner):
            raise ExpressionError(f"when: {text}{stands_for}: Argo compares it as a time, not as a text")
        return inner
    if _NUMBER.fullmatch(replaced):
        return float(replaced)
    if not _WORD.fullmatch(replaced) or replaced in _KEYWORDS:
        what = f"the tag: {text}{stands_for}" if stands_for else f"{text}"
        raise ExpressionError(f"when: put quotes around {what}, of which Argo would make something else")
    return {"true": True, "false": False}.get(replaced, replaced)


def _operand(_kind: str, text: str) -> Operand:
    task, _, result = text.partition(".")
    return Operand(task, result or None)


class _Reader:
    """Recursive descent over `|| && !`, comparisons and parentheses; `leaf` gives each term its value."""

    def __init__(self, text: str, lexicon: re.Pattern[str], leaf: Callable[[str, str], Any]) -> None:
        self.text, self.leaf = text, leaf
        self.tokens = list(_tokens(text, lexicon))

    def value(self) -> bool:
        value = self._boolean(self._any())
        if self.tokens:
            raise ExpressionError(f"cannot read {self.text!r} from {self.tokens[0][1]!r} on")
        return value

    def _any(self) -> Any:
        value = self._all()
        while self._take("||"):
            right = self._boolean(self._all())
            value = self._boolean(value) or right
        return value

    def _all(self) -> Any:
        value = self._comparison()
        while self._take("&&"):
            right = self._boolean(self._comparison())
            value = self._boolean(value) and right
        return value

    def _comparison(self) -> Any:
        left = self._term()
        for name in _COMPARE:
            if self._take(name):
                return self._compare(left, name, self._term())
        return left

    def _compare(self, left: Any, name: str, right: Any) -> bool:
        """A number is never a text nor true or false, and only numbers or texts come before each other: as in govaluate."""
        if _UNKNOWN in (left, right):
            return True
        if name in ("==", "!="):
            return (type(left) is type(right) and left == right) is (name == "==")
        if type(left) is not type(right) or isinstance(left, bool):
            raise ExpressionError(f"{self.text!r}: {left!r} {name} {right!r} has no answer")
        return _COMPARE[name](left, right)

    def _term(self) -> Any:
        if self._take("!"):
            return not self._boolean(self._term())
        if self._take("("):
            value = self._any()
            if not self._take(")"):
                raise ExpressionError(f"{self.text!r}: a parenthesis is not closed")
            return value
        if not self.tokens or self.tokens[0][0] == "op":
            raise ExpressionError(f"{self.text!r}: a term is missing")
        return self.leaf(*self.tokens.pop(0))

    def _take(self, op: str) -> bool:
        taken = bool(self.tokens) and self.tokens[0] == ("op", op)
        if taken:
            del self.tokens[0]
        return taken

    def _boolean(self, value: Any) -> bool:
        if value is _UNKNOWN:
            return True
        if not isinstance(value, bool):
            raise ExpressionError(f"{self.text!r}: {value!r} is neither true nor false")
        return value


def _tokens(text: str, lexicon: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    position, end = 0, len(text.rstrip())
    while position < end:
        match = lexicon.match(text, position)
        if match is None:
            raise ExpressionError(f"cannot read {text!r} from {text[position:]!r} on")
        yield str(match.lastgroup), match[str(match.lastgroup)]
        position = match.end()


# -- fan-outs ----------------------------------------------------------------------------------------------------------


def items_of(with_param: str) -> list[Any]:
    """Return the items of a fan-out.

    Raises:
        ExpressionError: it is not a JSON list.
    """
    try:
        items = json.loads(with_param)
    except json.JSONDecodeError as invalid:
        raise ExpressionError(f"withParam is not JSON ({invalid}): {with_param[:200]!r}") from None
    if not isinstance(items, list):
        raise ExpressionError(f"withParam is not a JSON list: {with_param[:200]!r}")
    return items


def item_scope(item: Any) -> dict[str, str]:
    """Return what `{{item}}` and, for an object, each `{{item.field}}` stand for.

    Raises:
        ExpressionError: a text has a character that Argo hands on escaped (it strips the quotes of the JSON text only).
    """
    fields = {f"item.{key}": _item_text(value) for key, value in item.items()} if isinstance(item, dict) else {}
    return {"item": _item_text(item), **fields}


def _item_text(value: Any) -> str:
    if not isinstance(value, str):
        return _compact(value)
    if json.dumps(value, ensure_ascii=False) != f'"{value}"':
        raise ExpressionError(
            f"item {value!r}: Argo hands a quote, backslash or line break in an item's text on escaped"
        )
    return value


def aggregate(values: list[str]) -> str:
    r"""Return what Argo makes of one output parameter of a fan-out: a list of the JSON values if all are lists or objects.

    A list of texts otherwise, so that numbers come out quoted: `["1", "2"]`.

    Raises:
        ExpressionError: an integer in them is beyond 2^53, which Argo (whose JSON numbers are floats here) would round.
    """
    try:
        parsed = [json.loads(value) for value in values]
    except json.JSONDecodeError:
        return _compact(values)
    if not all(isinstance(value, list | dict) for value in parsed):
        return _compact(values)
    for value in parsed:
        _refuse_inexact(value)
    return _compact(parsed)


def _refuse_inexact(value: Any) -> None:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _refuse_inexact(inner)
    elif isinstance(value, int) and abs(value) > _EXACT:
        raise ExpressionError(f"Argo rounds {value} when it gathers a fan-out's outputs: hand big integers on as text")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)

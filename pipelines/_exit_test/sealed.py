"""The answer of an incident, which nobody reads by accident: a file with hashes, against which answers are held.

It is no safe. Whoever tries all causes, views and hours finds it, and has learnt nothing.
"""

import enum
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from lockstep.errors import BadInput

FILE = "sealed.json"
HOURS_APART = 1
"""By how many hours an answer about a clock may be off: the rows that show it are read an hour apart."""


class Part(enum.StrEnum):
    """A part of an answer."""

    CAUSE = "cause"
    VIEW = "view"
    HOURS = "hours"


@dataclass(frozen=True)
class Answer:
    """What somebody says of an incident.

    Attributes:
        cause: as parity names it.
        view: whose; "" where it is no view's.
        hours: how far ahead a clock is, behind if negative; None where none is.
    """

    cause: str
    view: str = ""
    hours: int | None = None


class Sealed(BaseModel, frozen=True):
    """What is right.

    Attributes:
        salt: goes before what is hashed.
        accepted: the hashes of what is right, by part; a part that is not there is not asked for.
    """

    salt: str
    accepted: Mapping[Part, frozenset[str]]

    @classmethod
    def of(cls, answer: Answer) -> "Sealed":
        """Seal the right answer."""
        salt = secrets.token_hex(16)
        right: dict[Part, Iterable[object]] = {Part.CAUSE: [answer.cause]}
        if answer.view:
            right[Part.VIEW] = [answer.view]
        if answer.hours is not None:
            right[Part.HOURS] = range(answer.hours - HOURS_APART, answer.hours + HOURS_APART + 1)
        return cls(
            salt=salt,
            accepted={part: frozenset(_hashed(salt, part, of) for of in values) for part, values in right.items()},
        )

    @classmethod
    def read(cls, folder: Path) -> "Sealed":
        """Read it from the home of an incident.

        Raises:
            BadInput: nothing was begun there.
        """
        try:
            return cls.model_validate_json((folder / FILE).read_bytes())
        except FileNotFoundError:
            raise BadInput(
                f"there is nothing to check in {folder}", hint="`lockstep exit-test begin` prepares it"
            ) from None

    def write(self, folder: Path) -> None:
        """Write it there."""
        (folder / FILE).write_text(self.model_dump_json(indent=2) + "\n")

    def wrong(self, answer: Answer) -> list[Part]:
        """Return which parts of an answer are not right; where the cause is wrong, nothing is said of the others."""
        said = {Part.CAUSE: answer.cause, Part.VIEW: answer.view, Part.HOURS: answer.hours}
        parts = [part for part, right in self.accepted.items() if _hashed(self.salt, part, said[part]) not in right]
        return [Part.CAUSE] if Part.CAUSE in parts else sorted(parts)


def _hashed(salt: str, part: Part, value: object) -> str:
    return hashlib.sha256(f"{salt}\0{part.value}\0{value}".encode()).hexdigest()

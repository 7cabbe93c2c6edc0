"""What can go wrong, as states a caller can act on.

LockstepError
├── Transient                  exit 1   try again: the store, the network, a commit that lost a race
├── Terminal                   exit 2   trying again changes nothing
│   ├── BadInput                        what was asked for does not exist or does not make sense
│   ├── UseCaseError                    the use-case folder does not import or contradicts itself
│   ├── NotYetSupported                 a case this release knows of and does not handle
│   ├── LostStore                       the online store is not the one the ledger wrote to
│   ├── SchemaDrift                     a table is not what its view declares
│   └── VerificationFailed              what was read back is not what was written
└── Refused                    exit 3   a gate said no; the answer is in the report, not in a retry
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class LockstepError(Exception):
    """Base of every error Lockstep raises on purpose.

    Attributes:
        exit_code: what a step or the console command exits with.
        hint: what the reader can do about it; empty when there is nothing to add.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n\nHint: {self.hint}" if self.hint else message


class Transient(LockstepError):
    """The same call may succeed in a moment."""

    exit_code = 1


class Terminal(LockstepError):
    """The same call will fail again."""


class BadInput(Terminal):
    """What was asked for does not exist or does not make sense."""


class UseCaseError(Terminal):
    """The use-case folder does not import or contradicts itself."""


class NotYetSupported(Terminal):
    """A case this release knows of and does not handle; nothing was changed."""


class LostStore(Terminal):
    """The online store is not the one the ledger wrote to, or lost what was written."""


class SchemaDrift(Terminal):
    """A table is not what its view declares."""


class VerificationFailed(Terminal):
    """What was read back from the online store is not what was written."""


class Refused(LockstepError):
    """A gate said no."""

    exit_code = 3


_LONGEST = 200


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint that names the valid spellings nearest to `name`, or all of them when none is near."""
    known = sorted(valid)
    # Anybody may send a name of megabytes; it is near none, and difflib takes 0.1 s to say so.
    close = difflib.get_close_matches(name[:_LONGEST], known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    return f"known: {', '.join(known)}" if known else "there are none"

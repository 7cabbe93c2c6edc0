"""The one clock: every *now* in Lockstep is read here.

It is the machine's clock, or the machine's clock plus an offset kept in one file that a replay moves; the file is read on
each call, so that every process of a replay sees the same time.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lockstep.errors import BadInput

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
HOUR_US = 3_600_000_000

_WRITE = "write it as 2018-06-01T00:00:00Z"


def to_micros(time: datetime) -> int:
    """Return microseconds since 1970-01-01T00:00Z, exactly.

    Raises:
        BadInput: `time` has no zone.
    """
    return (require_zone(time) - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the UTC time that lies `micros` microseconds after 1970-01-01T00:00Z."""
    return EPOCH + timedelta(microseconds=micros)


def require_zone(time: datetime, what: str = "a time") -> datetime:
    """Return `time` in UTC.

    Raises:
        BadInput: `time` has no zone; the machine's zone is never guessed.
    """
    if time.tzinfo is None:
        raise BadInput(f"{what} has no time zone: {time.isoformat()}", hint=_WRITE)
    return time.astimezone(UTC)


def parse_time(text: str, what: str = "a time") -> datetime:
    """Return the UTC time that the ISO 8601 `text` names.

    Raises:
        BadInput: the text is no ISO 8601 time, or has no zone.
    """
    try:
        return require_zone(datetime.fromisoformat(text), what)
    except ValueError:
        raise BadInput(f"{what} is no ISO 8601 time: {text!r}", hint=_WRITE) from None
    except OverflowError:
        raise BadInput(f"{what} is out of range: in UTC there is no {text}", hint=_WRITE) from None


@dataclass(frozen=True)
class Clock:
    """Tells the time; `offset_file` is None for the machine's own clock.

    The file holds whole microseconds as decimal text. It is replaced atomically, and never moves time back.
    """

    offset_file: Path | None = None

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.now(UTC) + self._offset()

    def advance_to(self, time: datetime) -> None:
        """Move a replay's clock forward so that it is at least `time`.

        Raises:
            BadInput: this is the machine's own clock, which nobody moves.
        """
        if self.offset_file is None:
            raise BadInput(
                "the machine's own clock cannot be moved",
                hint="only a replay has a clock file (clock_file in settings)",
            )
        ahead = require_zone(time) - datetime.now(UTC)
        if self.offset_file.exists() and ahead <= self._offset():
            return
        self.offset_file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.offset_file.with_suffix(".partial")
        partial.write_text(str(ahead // MICROSECOND))
        partial.replace(self.offset_file)

    def _offset(self) -> timedelta:
        if self.offset_file is None or not self.offset_file.exists():
            return timedelta(0)
        return timedelta(microseconds=int(self.offset_file.read_text()))

"""Times as the Arrow columns hold them: microseconds since 1970 in UTC, never the machine's local time."""

from datetime import UTC, datetime, timedelta

SECOND = 1_000_000
DAY_SECONDS = 86_400

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_microseconds(moment: datetime, name: str) -> int:
    """Microseconds since 1970 of an aware time, exactly.

    Raises:
        ValueError: `moment` has no time zone; `name` tells the caller which argument that was.
    """
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(f"{name}={moment!r} has no time zone. Hint: pass tzinfo=datetime.UTC.")
    return duration(moment - _EPOCH)


def duration(length: timedelta) -> int:
    """Microseconds in `length`; integer division, because total_seconds() is a float."""
    return length // timedelta(microseconds=1)

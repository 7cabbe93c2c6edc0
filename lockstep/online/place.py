"""Where writes go, so that it shows when they may have been lost: which servers, and which run of each."""

from dataclasses import dataclass
from typing import Any, cast

from redis import exceptions

from lockstep.online.cluster import Primary, primaries
from lockstep.online.store import Store, answering


@dataclass(frozen=True)
class Place:
    """What has to stay the same for writes not to be lost: the store's name, the run of its server, its line of replication.

    A flush takes the name, a restart changes the run, a failover the run or the line. Run and line are "" where the server
    does not tell them (no permission for INFO): then a restart goes unnoticed. Of a cluster they are those of each primary, in
    the order of `cluster.primaries`, with commas between them.
    """

    incarnation: str
    run: str
    line: str

    @classmethod
    def of(cls, text: str) -> "Place":
        """Read what `str` wrote."""
        return cls(*text.split("/"))

    def __str__(self) -> str:
        return f"{self.incarnation}/{self.run}/{self.line}"

    @property
    def is_told(self) -> bool:
        """Whether every server tells its run."""
        return all(self.run.split(","))

    @property
    def each(self) -> list["Place"]:
        """The place of each primary."""
        runs, lines = self.run.split(","), self.line.split(",")
        return [Place(self.incarnation, run, line) for run, line in zip(runs, lines, strict=True)]


def place_of(store: Store, incarnation: str) -> Place:
    """Return where writes go now, to the store of this name.

    Raises:
        Transient: a server does not answer.
    """
    told = [_told(primary) for primary in primaries(store)]
    return Place(incarnation, ",".join(run for run, _ in told), ",".join(line for _, line in told))


def _told(primary: Primary) -> tuple[str, str]:
    with answering():
        try:
            info = cast("dict[str, Any]", primary.client.info())
        except exceptions.NoPermissionError:
            return "", ""
    return info.get("run_id", ""), info.get("master_replid", "")

"""Open the embedded databases once a process: an engine made anew compiles every statement anew, some 10 ms a time."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_Opened = TypeVar("_Opened")
_PREFIX = "sqlite:///"


class OpenOnce:
    """Keeps what was opened on a SQLite file until another file is found in its place; other addresses are opened each time.

    What was opened on the file before is let go of, not closed: somebody may still be using it, and its connections end with
    the last one who does.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], tuple[tuple[int, int], object]] = {}

    def get(self, url: str, open_it: Callable[[], _Opened], *key: object) -> _Opened:
        """Return what `open_it` gave for this URL, this file behind it and this key.

        A file that is not there yet is not remembered: it would be mistaken for the one that is made after it was removed.
        """
        file = Path(url.removeprefix(_PREFIX))
        if not url.startswith(_PREFIX) or not file.exists():
            return open_it()
        found = file.stat()
        name, identity = (url, *key), (found.st_dev, found.st_ino)
        if name not in self._kept or self._kept[name][0] != identity:
            self._kept[name] = identity, open_it()
        return self._kept[name][1]  # pyright: ignore[reportReturnType] - put there under the name of the same call

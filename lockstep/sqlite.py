"""Open the embedded databases once a process: an engine made anew compiles every statement anew, some 10 ms a time."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_Opened = TypeVar("_Opened")
_PREFIX = "sqlite:///"


class OpenOnce:
    """Keeps what was opened on a SQLite file, as long as it is the same file; other addresses are opened each time."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], object] = {}

    def get(self, url: str, open_it: Callable[[], _Opened], *key: object) -> _Opened:
        """Return what `open_it` gave for this URL, this file behind it and this key.

        A file that is not there yet is not remembered: it would be mistaken for the one that is made after it was removed.
        """
        file = Path(url.removeprefix(_PREFIX))
        if not url.startswith(_PREFIX) or not file.exists():
            return open_it()
        found = file.stat()
        name = (url, found.st_dev, found.st_ino, *key)
        if name not in self._kept:
            self._kept[name] = open_it()
        return self._kept[name]  # pyright: ignore[reportReturnType] - put there under the name of the same call

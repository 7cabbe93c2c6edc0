"""A database is opened once a process, but never mistaken for the one that took its place."""

import gc
import weakref
from pathlib import Path

from lockstep.sqlite import OpenOnce


class Opened:
    pass


def test_a_file_is_opened_once_for_each_key(tmp_path: Path) -> None:
    once, file = OpenOnce(), tmp_path / "a.db"
    file.touch()
    first = once.get(f"sqlite:///{file}", Opened, "one")

    assert once.get(f"sqlite:///{file}", Opened, "one") is first
    assert once.get(f"sqlite:///{file}", Opened, "two") is not first


def test_what_is_no_file_yet_or_no_sqlite_is_opened_each_time(tmp_path: Path) -> None:
    once = OpenOnce()
    for url in (f"sqlite:///{tmp_path}/a.db", "postgresql://host/ledger"):
        assert once.get(url, Opened) is not once.get(url, Opened)


def test_what_was_opened_on_a_file_that_another_replaced_is_let_go_of(tmp_path: Path) -> None:
    once, file, other = OpenOnce(), tmp_path / "a.db", tmp_path / "b.db"
    file.touch()
    other.touch()
    before = weakref.ref(once.get(f"sqlite:///{file}", Opened))
    assert before() is not None

    other.replace(file)
    after = once.get(f"sqlite:///{file}", Opened)
    gc.collect()

    assert before() is None
    assert once.get(f"sqlite:///{file}", Opened) is after

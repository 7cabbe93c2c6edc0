"""A function's hash changes with whatever it computes with, and with nothing else."""

import functools
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep.changes.code import code_hash

RECIPE = """
import collections
from case.tuning import LEAVES, Params, depth
from case import services

ROUNDS = 200
THRESHOLD = 0.5
CHOSEN = {"b", "a"}
PARAMS = Params(3)

def make():
    from .late import RATE
    return collections.OrderedDict(rounds=ROUNDS, leaves=LEAVES, depth=depth(), rate=RATE, chosen=CHOSEN, p=PARAMS)
"""
TUNING = """
from dataclasses import dataclass
LEAVES = 15
DEPTH = 4

@dataclass
class Params:
    n: int

    def twice(self):
        return 2 * self.n

def depth():
    return [DEPTH for _ in range(1)]
"""
FILES = {"__init__": "", "recipe": RECIPE, "tuning": TUNING, "late": "RATE = 0.1", "services": "VIEWS = 1"}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "case"]:
        del sys.modules[name]


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str = "", old: str = "", new: str = "") -> Any:
    """The function of a package in which one text is another."""
    (folder / "case").mkdir(parents=True)
    for name, text in FILES.items():
        assert name != module or old in text
        (folder / "case" / f"{name}.py").write_text(text.replace(old, new) if name == module else text)
    forget()
    importlib.invalidate_caches()
    with monkeypatch.context() as patched:
        patched.syspath_prepend(str(folder))
        found = importlib.import_module("case.recipe").make
        code_hash(found)  # imports what it imports late
        return code_hash(found)


@pytest.mark.parametrize(
    ("module", "old", "new", "same"),
    [
        ("recipe", "ROUNDS = 200", "ROUNDS = 2", False),
        ("recipe", "return collections", "return 1 and collections", False),
        ("recipe", "Params(3)", "Params(4)", False),
        ("tuning", "LEAVES = 15", "LEAVES = 16", False),
        ("tuning", "DEPTH = 4", "DEPTH = 5", False),
        ("tuning", "2 * self.n", "3 * self.n", False),
        ("late", "0.1", "0.2", False),
        ("recipe", "THRESHOLD = 0.5", "THRESHOLD = 0.6", True),
        ("recipe", '{"b", "a"}', '{"a", "b"}', True),
        ("services", "VIEWS = 1", "VIEWS = 2", True),
    ],
)
def test_it_changes_with_what_the_function_computes_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, old: str, new: str, same: bool
) -> None:
    before = made(tmp_path / "a", monkeypatch)
    after = made(tmp_path / "b", monkeypatch, module, old, new)
    assert (before == after) is same


def test_arguments_that_are_bound_count() -> None:
    assert code_hash(functools.partial(int, base=2)) != code_hash(functools.partial(int, base=3))
    assert code_hash(functools.partial(int, base=2)) == code_hash(functools.partial(int, base=2))

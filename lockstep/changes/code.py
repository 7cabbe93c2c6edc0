"""What a function of a use case computes with, as one hash: its text, and that of whatever it names in its own package.

Not `source_hash` of its module: a recipe's module imports the service, and with it every view, so that any change of a view would
look like another estimator.
"""

import dis
import functools
import importlib.util
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from lockstep.errors import UseCaseError
from lockstep.hashing import digest, source_hash


def code_hash(function: Any) -> str:
    """Return the SHA-256 of a function's text and of what it names: functions and classes of its package, values, imports.

    What comes from another package is named, and no more: its releases are not the use case's.
    """
    return digest(list(_parts(function, _module(function).partition(".")[0], set())))


def _parts(thing: Any, package: str, seen: set[int]) -> Iterator[str]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, functools.partial):
        yield from _parts(thing.func, _module(thing.func).partition(".")[0], seen)
        yield _value([thing.args, thing.keywords])
    elif isinstance(thing, ModuleType):
        yield _of_module(thing.__name__, package)
    elif inspect.isroutine(thing) or isinstance(thing, type):
        yield from _of_code(thing, package, seen)
    else:
        yield _value(thing)
        if _module(type(thing)).partition(".")[0] == package:
            yield from _of_code(type(thing), package, seen)


def _of_code(thing: Any, package: str, seen: set[int]) -> Iterator[str]:
    yield f"{_module(thing)}:{getattr(thing, '__qualname__', '')}"
    if _module(thing).partition(".")[0] != package:
        return
    try:
        yield inspect.getsource(thing)
    except (OSError, TypeError):  # typed in, or made by a library
        return
    inner = [value for value in vars(thing).values() if callable(value)] if isinstance(thing, type) else [thing]
    for function in (inspect.unwrap(value) for value in inner):
        if not isinstance(function, FunctionType):
            continue
        for code in _codes(function.__code__):
            for name in code.co_names:
                if name in function.__globals__:
                    yield from _named(name, function.__globals__[name], package, seen)
            for imported in (i.argval for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME"):
                yield _of_module(imported, package)
                yield _of_module(f"{function.__module__.rpartition('.')[0]}.{imported}", package)
        yield _value([cell.cell_contents for cell in function.__closure__ or ()])


def _named(name: str, thing: Any, package: str, seen: set[int]) -> Iterator[str]:
    yield name
    yield from _parts(thing, package, seen)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _of_module(name: str, package: str) -> str:
    try:
        inside = name.partition(".")[0] == package and importlib.util.find_spec(name) is not None
        return source_hash(name) if inside else name
    except (UseCaseError, ModuleNotFoundError):
        return name


def _module(thing: Any) -> str:
    return getattr(thing, "__module__", None) or type(thing).__module__


def _value(value: Any) -> str:
    """Return how a value is written: the same in another process, so sets are sorted and nothing says where it is."""
    if isinstance(value, set | frozenset):
        return repr(sorted(map(_value, value)))
    if isinstance(value, dict):
        return repr([(_value(k), _value(v)) for k, v in value.items()])
    if isinstance(value, list | tuple):
        return repr([_value(v) for v in value])
    told = repr(value)
    return f"{_module(value)}:{type(value).__qualname__}" if " at 0x" in told else told

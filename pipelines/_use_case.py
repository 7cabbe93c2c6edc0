"""A use case's own modules that a command asks for by name: its world, its demo, the results it makes again."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from lockstep.errors import BadInput


def load_module(package: str, name: str, without: str, needed: Sequence[str]) -> Any:
    """Return a module of a use case.

    Args:
        package: the use case's.
        name: the module's.
        without: what a use case that does not have it has not got, in words.
        needed: what it must define.

    Raises:
        BadInput: it is not there, or lacks something.
    """
    example = f"feature_repo/{name}.py is an example"
    try:
        module = import_module(f"{package}.{name}")
    except ModuleNotFoundError as missing:
        raise BadInput(f"the use case {package!r} has {without}: {missing}", hint=example) from missing
    if lacking := [wanted for wanted in needed if not hasattr(module, wanted)]:
        raise BadInput(f"{package}/{name}.py lacks {', '.join(lacking)}", hint=example)
    return module

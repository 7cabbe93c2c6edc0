"""Where code comes from that a recipe names: the release of what is installed, and the source of what is not."""

import hashlib
import sys
from collections.abc import Iterable
from importlib.metadata import distribution, packages_distributions, version
from pathlib import Path

import orjson

from lockstep.errors import UseCaseError
from lockstep.hashing import source_hash

# What fits, whatever class is fitted. Named here, because to read the names of all that is installed takes a quarter of a second.
_ALWAYS = {"sklearn": "scikit-learn", "numpy": "numpy", "scipy": "scipy"}


def origins(modules: Iterable[str]) -> list[tuple[str, str]]:
    """Return what the code of modules depends on, sorted: (distribution, release), or (module, hash of its source).

    scikit-learn, NumPy and SciPy are always among them; the standard library never is.

    Raises:
        UseCaseError: a module is neither of an installed distribution nor of a file.
    """
    found = {(name, version(name)) for name in _ALWAYS.values()}
    others = {module: module.partition(".")[0] for module in modules}
    others = {m: package for m, package in others.items() if package not in _ALWAYS and not _is_standard(package)}
    provided = packages_distributions() if others else {}
    for module, package in others.items():
        if copies := [name for name in provided.get(package, ()) if not _is_editable(name)]:
            found |= {(name, version(name)) for name in copies}
        else:
            found.add((module, _source(module)))
    return sorted(found)


def _is_standard(package: str) -> bool:
    return package in sys.stdlib_module_names and package != "__main__"


def _is_editable(name: str) -> bool:
    """Tell whether a distribution is a folder that people edit: its release stays while its code changes.

    https://packaging.python.org/en/latest/specifications/direct-url/
    """
    text = distribution(name).read_text("direct_url.json")
    return bool(text) and bool(orjson.loads(text).get("dir_info", {}).get("editable"))


def _source(module: str) -> str:
    if module != "__main__":
        return source_hash(module)
    script = getattr(sys.modules[module], "__file__", None)
    if script is None:
        raise UseCaseError(
            "a class or function that was typed in has no source file to hash",
            hint="put it in a module of the use case: no predictor could import it either",
        )
    return hashlib.sha256(Path(script).read_bytes()).hexdigest()

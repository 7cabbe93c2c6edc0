"""Find a revision of a use case, a git revision or a folder, and have it described by a process of its own.

What is read from the revision is the use case alone. The library is the one at hand: of two releases of the library nobody
could tell whether a definition or its description changed.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lockstep
from lockstep.changes.describe import Definitions, describe
from lockstep.errors import BadInput, LockstepError, UseCaseError
from lockstep.views.use_case import load_use_case

MAIN_BRANCHES = ("origin/HEAD", "origin/main", "origin/master", "main", "master")
_SECONDS = 120
_FOLDERS = "name two folders that hold the package: --from FOLDER --to FOLDER"


@dataclass(frozen=True)
class Revision:
    """One state of the use case's package.

    Attributes:
        name: what to call it.
        commit: the git commit; "" for the work tree or a folder.
        folder: what holds the package; None where the commit has to be looked into.
    """

    name: str
    commit: str
    folder: Path | None = None

    @property
    def short(self) -> str:
        """The shortest that names it."""
        return self.commit[:7] or self.name


@dataclass(frozen=True)
class Repository:
    """The git repository that holds a use case's package.

    Attributes:
        root: its work tree.
        package: the package's name.
        place: the folder that holds the package, below the root.
    """

    root: Path
    package: str
    place: Path

    def git(self, *arguments: str) -> str | None:
        """Return what git prints, or None where it fails."""
        done = subprocess.run(
            ["git", "-C", str(self.root), *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    def run(self, *arguments: str, environment: Mapping[str, str]) -> None:
        """Let git do something that prints nothing.

        Raises:
            BadInput: it fails, or takes too long.
        """
        command = ["git", "-C", str(self.root), *arguments]
        given = {**os.environ, **environment}
        try:
            done = subprocess.run(
                command, env=given, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise BadInput(
                f"`git {arguments[0]}` takes more than {_SECONDS} s in {self.root}", hint=_FOLDERS
            ) from None
        if done.returncode != 0:
            raise BadInput(f"`git {arguments[0]}` fails in {self.root}: {done.stderr.strip()}", hint=_FOLDERS)

    def commit(self, revision: str) -> str | None:
        """Return the commit that a revision names, or None."""
        return self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")

    def base(self, of: str = "HEAD") -> Revision:
        """Return where a revision left the main branch: what a pull request is compared with. On the main branch it is itself.

        Raises:
            BadInput: there is no commit yet, no main branch, or none that the revision comes from.
        """
        if self.commit(of) is None:
            raise BadInput(f"{self.root} has no commit {of}", hint=_FOLDERS)
        mains = [main for main in MAIN_BRANCHES if self.commit(main) is not None]
        for main in mains:
            if found := self.git("merge-base", main, of):
                return Revision(f"{found[:7]}, where {of[:12]} left {main}", found)
        if mains:
            raise BadInput(
                f"{self.root}: {of} and {mains[0]} have no commit in common here",
                hint="a shallow clone has no history: `git fetch --unshallow`, or fetch-depth: 0 in CI",
            )
        raise BadInput(
            f"{self.root} has no branch {', '.join(MAIN_BRANCHES)}", hint="name what to compare with: --from REVISION"
        )


def package_folder(package: str) -> Path:
    """Return the folder that holds the use case's package, without importing it.

    Raises:
        UseCaseError: there is none.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    spec = importlib.util.find_spec(package.partition(".")[0])
    folders = [*(spec.submodule_search_locations or ())] if spec else []
    if not folders:
        raise UseCaseError(
            f"there is no package {package!r}",
            hint="LOCKSTEP_USE_CASE names a package in this folder or one that is installed",
        )
    return Path(folders[0]).resolve().parent


def find_repository(package: str) -> Repository | None:
    """Return the repository that holds the use case, or None: it is in none, or there is no git.

    Raises:
        UseCaseError: there is no such package.
        BadInput: git does not want to look, as into somebody else's folder.
    """
    place = package_folder(package)
    try:
        done = subprocess.run(
            ["git", "-C", str(place), "rev-parse", "--show-toplevel"],
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return None
    if done.returncode != 0:
        if "not a git repository" in done.stderr:
            return None
        raise BadInput(f"git does not tell which repository {place} is in: {done.stderr.strip()}")
    root = Path(done.stdout.strip()).resolve()
    return Repository(root, package, place.relative_to(root))


def find_revision(name: str, package: str, repository: Repository | None) -> Revision:
    """Return the revision that a person names: a git revision, else a folder.

    Raises:
        BadInput: it is neither, or the folder does not hold the package.
    """
    if repository is not None and (commit := repository.commit(name)) is not None:
        return Revision(name if name == commit else f"{name} ({commit[:7]})", commit)
    folder = Path(name)
    if not folder.is_dir():
        known = f"{repository.root} has no such revision" if repository else "and this is no git repository"
        raise BadInput(f"{name!r} is no folder, {known}", hint="fetch it, or see `git log` and `git branch -a`")
    for place in (folder, *([folder / repository.place] if repository else [])):
        if (place / package.replace(".", "/")).is_dir():
            return Revision(name, "", place.resolve())
    raise BadInput(
        f"the folder {name} does not hold the package {package!r}", hint="name the folder above the package"
    )


def work_tree(package: str) -> Revision:
    """Return what is in the files right now."""
    return Revision("the work tree", "", package_folder(package))


@contextmanager
def exported(revision: Revision, repository: Repository | None) -> Generator[Path | None]:
    """Give the folder that holds a revision's package; None where the revision has none.

    Raises:
        BadInput: git cannot give it.
    """
    if revision.folder is not None or repository is None:
        yield revision.folder
        return
    place = repository.place.as_posix()
    inner = (repository.place / repository.package.partition(".")[0]).as_posix()
    if repository.git("cat-file", "-e", f"{revision.commit}:{inner}") is None:
        yield None
        return
    tree = revision.commit if place == "." else f"{revision.commit}:{place}"
    with tempfile.TemporaryDirectory(prefix="lockstep-revision-") as made:
        # Through an index of its own, not by `git archive`: attributes (export-ignore) take no file away here, and a symbolic
        # link that leads out of the repository is one like any other.
        folder, index = Path(made) / "tree", {"GIT_INDEX_FILE": str(Path(made) / "index")}
        folder.mkdir()
        repository.run("read-tree", tree, environment=index)
        repository.run("checkout-index", "--all", "--force", f"--prefix={folder}/", environment=index)
        yield folder


def read_definitions(
    revision: Revision, repository: Repository | None, package: str, functions: Iterable[str] = ()
) -> Definitions | None:
    """Describe a revision in a process of its own; None where it has no such package.

    Args:
        revision: which one.
        repository: where its commit is.
        package: the use case.
        functions: on-demand functions to look for besides the declared ones.

    Raises:
        BadInput: git cannot give it.
        UseCaseError: its definitions do not import, or contradict themselves.
    """
    with exported(revision, repository) as folder:
        if folder is None:
            return None
        asked = json.dumps({"package": package, "functions": sorted(functions)})
        # Not by -m: the revision may hold another release of this library, and the folder we are in may be its.
        library = str(Path(lockstep.__file__).resolve().parents[1])
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", "from lockstep.changes.revisions import main; main()"],
                cwd=folder,
                env=_environment(library),
                input=asked,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UseCaseError(
                f"{revision.name}: its definitions are not imported after {_SECONDS} s",
                hint="what takes long or waits for something belongs into a function, not into what is imported",
            ) from None
        if done.returncode != 0:
            told = done.stderr.strip().replace(f"{folder}{os.sep}", "") or f"exit {done.returncode}"
            raise UseCaseError(
                f"{revision.name}: {told}", hint="both revisions have to import with the library at hand"
            )
        return Definitions.model_validate_json(done.stdout)


def _environment(library: str) -> dict[str, str]:
    """Return what a process that describes a revision is given: not our settings, whose secrets are no business of its code."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("LOCKSTEP_")}
    path = os.pathsep.join([library, *_inherited()])
    return {**kept, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def _inherited() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def main() -> None:
    """Describe the use case in the current folder: what to describe comes as JSON on stdin, the description goes to stdout."""
    asked = json.loads(sys.stdin.read())
    sys.path.insert(0, str(Path.cwd()))  # before the work tree, from which the library has been imported by now
    answer = sys.stdout
    sys.stdout = sys.stderr  # what a definition prints is no part of the answer
    try:
        told = describe(load_use_case(asked["package"]), asked["functions"]).model_dump_json()
    except LockstepError as wrong:
        sys.exit(str(wrong))
    answer.write(told)

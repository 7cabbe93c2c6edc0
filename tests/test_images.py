"""What can be known of the image without building one: what it copies, who it runs as, and that its smoke test passes."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from lockstep.settings import Settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "images" / "steps" / "Dockerfile"
SMOKE = ROOT / "images" / "steps" / "smoke.sh"

Arguments = dict[str, str]

# The build arguments of each image, and what the smoke test says of its use case.
REFERENCE: Arguments = {}
SECOND = {"USE_CASE": "tests/use_cases/pump_care", "USE_CASE_PACKAGE": "pump_care"}
# What the Python image sets, as far as it is used.
OF_THE_BASE = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
BOTH = pytest.mark.parametrize("given", [REFERENCE, SECOND], ids=["reference", "second"])


def instructions(given: Arguments, dockerfile: str | None = None) -> list[tuple[str, str]]:
    """The Dockerfile's instructions with the build arguments put in, where an image is built with these.

    What ARG sets above the first FROM is known to the FROM lines, and to a stage that asks for it with an ARG of its own.
    https://docs.docker.com/reference/dockerfile/#understand-how-arg-and-from-interact

    Raises:
        KeyError: an instruction takes the value of a variable that its stage does not have.
    """
    text = re.sub(r"^#.*\n", "", dockerfile or DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    above: Arguments = {}
    values = above
    found: list[tuple[str, str]] = []
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            values = above
        if word != "RUN":  # its variables are the shell's affair
            rest = re.sub(r"\$\{(\w+)}", lambda name, known=values: known[name[1]], rest.strip())
        if word == "FROM":
            values = dict(OF_THE_BASE)
        if word == "ARG":
            name, given_default, default = rest.partition("=")
            if not given_default and name in above:
                default = above[name]
            values[name] = given.get(name, default)
        found.append((word, rest))
    return found


def copies(given: Arguments) -> list[tuple[list[str], str]]:
    """What is copied from the build context, and to where."""
    words = [rest.split() for word, rest in instructions(given) if word == "COPY" and not rest.startswith("--from=")]
    return [(sources, target) for *sources, target in words]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build context: the last pattern that names it or a parent decides."""
    left_out = False
    parents = [path, *map(str, Path(path).parents)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            if any(re.fullmatch(pattern, parent) for parent in parents):
                left_out = not line.startswith("!")
    return left_out


def app(folder: Path, given: Arguments) -> tuple[Path, dict[str, str]]:
    """The image's /app with its use case, and the variables that the image sets; Python is this one."""
    for sources, target in copies(given):
        if target.startswith("/app/"):
            copied = folder / target.removeprefix("/")
            shutil.copytree(ROOT / sources[0], copied, ignore=shutil.ignore_patterns("__pycache__"))
    (variables,) = [rest for word, rest in instructions(given) if word == "ENV" and "LOCKSTEP_USE_CASE" in rest]
    env = dict(pair.split("=", 1) for pair in variables.split())
    scratch = folder / "tmp"
    scratch.mkdir()
    here = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "TMPDIR": str(scratch)}
    moved = {name: re.sub(r"^/(?=app|tmp)", f"{folder}/", value) for name, value in env.items()}
    return folder / "app", moved | here


def test_a_stage_that_does_not_ask_for_an_argument_does_not_have_it() -> None:
    text = DOCKERFILE.read_text()
    asked = [match.span() for match in re.finditer(r"^ARG \w+\n", text, flags=re.MULTILINE)]
    assert len(asked) == 3
    for start, end in asked:
        with pytest.raises(KeyError, match="USE_CASE"):
            instructions(REFERENCE, text[:start] + text[end:])


@BOTH
def test_all_that_is_copied_is_there_and_in_the_build_context(given: Arguments) -> None:
    sources = [source for names, _ in copies(given) for source in names]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if ignored(source)] == []
    files = [p.relative_to(ROOT) for source in sources for p in (ROOT / source).rglob("*.py")]
    assert [str(file) for file in files if ignored(str(file))] == []


def test_what_no_image_needs_stays_out_of_the_build_context() -> None:
    out = (
        ".git/config",
        ".venv/bin/python",
        ".lockstep/demo/mlflow.db",
        "tests/test_images.py",
        "manifests/apps",
        "lockstep/__pycache__/clock.cpython-311.pyc",
        "tests/use_cases/pump_care/__pycache__/plant.cpython-311.pyc",
        "steps/.env",
        "tls.key",
    )
    assert [path for path in out if not ignored(path)] == []


def test_the_image_holds_the_use_case_that_the_settings_name_by_default_and_no_other() -> None:
    default = Settings.model_fields["use_case"].default
    assert [copy for copy in copies(REFERENCE) if default in copy[0]] == [([default], f"/app/{default}")]
    assert [copy for copy in copies(SECOND) if default in copy[0]] == []


def test_a_use_case_that_lies_deeper_is_copied_to_where_it_is_imported_from() -> None:
    assert (["tests/use_cases/pump_care"], "/app/pump_care") in copies(SECOND)


def test_what_is_copied_makes_the_librarys_wheel_with_every_file_of_it_and_without_a_use_case(tmp_path: Path) -> None:
    for sources, target in copies(SECOND):
        for source in sources:
            if target in {"./", source}:
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, tmp_path / (source if target == source else Path(source).name))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    packages = ("lockstep", "steps", "pipelines")
    files = {p.relative_to(ROOT).as_posix() for name in packages for p in (ROOT / name).rglob("*") if p.is_file()}
    assert packed == {name for name in files if "__pycache__" not in name}


def test_everything_that_is_downloaded_has_a_hash() -> None:
    run = " && ".join(rest for word, rest in instructions(REFERENCE) if word == "RUN")
    commands = [command for command in re.split(r"\s*&&\s*", run) if "pip install" in command or "uv build" in command]
    assert len(commands) == 4
    assert ["--no-deps dist/*.whl" in c or "--require-hashes" in c for c in commands] == [True] * 4


def test_it_runs_as_the_user_that_the_workflows_ask_for() -> None:
    (user,) = [rest for word, rest in instructions(REFERENCE) if word == "USER"]
    workflows = sorted((ROOT / "manifests/apps/base/workflows").glob("*/workflowtemplate.yaml"))
    asked = {yaml.safe_load(path.read_text())["spec"]["securityContext"]["runAsUser"] for path in workflows}
    assert (user, asked) == ("65532:65532", {65532})


def test_no_file_names_a_registry() -> None:
    bases = [rest.split()[0] for word, rest in instructions(REFERENCE) if word == "FROM"]
    assert bases == ["python:3.11-slim"] * 2
    named = re.compile(r"\b[\w-]+(\.[\w-]+)*\.(io|com|dev|net|org|cloud)/|localhost[:/]")
    assert [p.name for p in sorted((ROOT / "images").rglob("*")) if p.is_file() and named.search(p.read_text())] == []


@pytest.mark.parametrize("given", [SECOND], ids=["second"])  # all imports take half a minute
def test_the_smoke_test_passes_here_and_writes_nothing_outside_tmp(given: Arguments, tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", str(SMOKE)], check=True)
    folder, environment = app(tmp_path, given)
    before = sorted(tmp_path.rglob("*"))

    done = subprocess.run([SMOKE], cwd=folder, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    use_case, steps, ran = done.stdout.splitlines()
    assert steps == f"steps: {len(list((ROOT / 'steps').glob('*.py'))) - 1} modules"
    project, _, views = use_case.partition(": ")
    assert project == ("pumpcare" if given else "fraud")
    assert ran.removeprefix("list-views: ") == str(views.split(", ")).replace("'", '"')
    written = set(tmp_path.rglob("*")) - set(before)
    assert [str(path) for path in written if tmp_path / "tmp" not in path.parents] == []


def test_the_smoke_test_fails_for_a_use_case_that_is_not_in_the_image(tmp_path: Path) -> None:
    folder, environment = app(tmp_path, REFERENCE)
    elsewhere = environment | {"LOCKSTEP_USE_CASE": "tests/use_cases/pump_care"}
    done = subprocess.run([SMOKE], cwd=folder, env=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the use case 'tests/use_cases/pump_care' does not import" in done.stderr

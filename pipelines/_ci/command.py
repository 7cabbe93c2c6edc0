"""The home of a trial and what is told of it: made for one view, kept where something is wrong, removed where nothing is."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from lockstep.errors import BadInput, Refused
from lockstep.local.redis import LocalRedis
from lockstep.parity.one_view import Held, find_view
from lockstep.settings import Settings
from lockstep.views import UseCase, load_use_case
from pipelines import check as checking
from pipelines import render as rendering
from pipelines._ci.life import Life, Lived, Sample
from pipelines._commands.plan import Planned, make_plan, subject_lines
from pipelines._commands.progress import Reporter
from pipelines._demo.world import load_simulator
from pipelines._run.rendered import environment_kept

_WIDTH = 14
_MODES = {"bootstrap": "back-filled"}


@dataclass(frozen=True)
class Rendered:
    """The workflows that a trial runs: where they are, and how many."""

    root: Path
    workflows: int


@dataclass(frozen=True)
class Proof:
    """What a trial gave.

    Attributes:
        view: whose.
        rendered: the workflows it ran.
        plan: what the change does to the view, or why nothing is known of one.
        refused: whether the plan refuses it.
        lived: what came of the life.
        seconds: per stage, and `total`.
        home: where all of it is, if it was kept.
    """

    view: str
    rendered: Rendered
    plan: tuple[str, ...]
    refused: bool
    lived: Lived
    seconds: Mapping[str, float]
    home: str

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the view may not be merged as it is."""
        return (*(["plan: the change is refused"] if self.refused else []), *self.lived.problems)


def prove_view(
    settings: Settings,
    name: str,
    manifests: Path,
    reporter: Reporter,
    sample: Sample,
    *,
    since: str | None,
    keep: bool,
) -> Proof:
    """Live through the life of one view in a home of its own.

    Args:
        settings: which use case.
        name: of the view.
        manifests: the root of the committed manifests.
        reporter: told what is going on.
        sample: how much is lived.
        since: the revision that the plan compares with; None is where the branch left the main one.
        keep: keep the home also if nothing is wrong.

    Raises:
        BadInput: there is no such view, or the use case has no world.
        Refused: the committed workflows are not what the code renders.
        LockstepError: a step failed; the home is kept.
    """
    use_case = load_use_case(settings.use_case)
    find_view(use_case, name)
    load_simulator(settings.use_case)
    return _try(settings, use_case, name, manifests, reporter, sample, _planned(settings, since), keep=keep)


def prove_changed(
    settings: Settings, manifests: Path, reporter: Reporter, sample: Sample, *, since: str | None, keep: bool
) -> list[Proof]:
    """Live through the life of each view that the plan says is changed, one after the other.

    Raises:
        The same as `prove_view`, and of the plan.
    """
    use_case, planned = load_use_case(settings.use_case), make_plan(settings, since, None)
    return [
        _try(settings, use_case, name, manifests, reporter, sample, planned, keep=keep)
        for name in planned.plan.changed_views
    ]


def _planned(settings: Settings, since: str | None) -> Planned | str:
    try:
        return make_plan(settings, since, None)
    except BadInput as absent:
        if since is not None:
            raise
        return str(absent.args[0])


def _try(
    settings: Settings,
    use_case: UseCase,
    name: str,
    manifests: Path,
    reporter: Reporter,
    sample: Sample,
    planned: Planned | str,
    *,
    keep: bool,
) -> Proof:
    started, home = time.monotonic(), Path(tempfile.mkdtemp(prefix=f"lockstep-ci-{name}-")).resolve()
    proven = False
    try:
        with reporter.stage(f"{name}: render"):
            rendered = _render(manifests, home)
        with LocalRedis(home) as redis, environment_kept(home):
            inside = redis.settings(_settings(home, settings.use_case))
            os.environ.update(inside.environment())
            os.environ["LOCKSTEP_MANIFESTS"] = str(rendered.root)
            simulator = load_simulator(settings.use_case)
            life = Life(inside, rendered.root, reporter, simulator, use_case, name, sample)
            lived = life.live()
        seconds = life.seconds | {"total": round(time.monotonic() - started, 1)}
        told, refused = _of_the_view(planned, name)
        proof = Proof(name, rendered, told, refused, lived, seconds, str(home))
        proven = not proof.problems
    except BaseException:
        _say_where(home)
        raise
    if proven and not keep:
        shutil.rmtree(home)
        return Proof(name, rendered, told, refused, lived, seconds, "")
    return proof


def _say_where(home: Path) -> None:
    """Say where a trial that failed can be looked at."""
    click.echo(f"kept for a look: {home}", err=True)


def _render(manifests: Path, home: Path) -> Rendered:
    """Return the workflows to run: the committed ones, or where there are none those that the code renders."""
    root = manifests
    if not manifests.exists():
        root = home / "manifests"
        rendering.write(root, "pipelines")
    if findings := checking.run_checks(root):
        wrong = "; ".join(f"{finding.file}: {finding.what}" for finding in findings[:3])
        raise Refused(f"the workflows are not as they should be: {wrong}", hint="see `lockstep check`")
    return Rendered(root.resolve(), len(list(root.rglob("workflowtemplate.yaml"))))


def _settings(home: Path, use_case: str) -> Settings:
    given = Settings(
        home=home,
        use_case=use_case,
        clock_file=home / "clock",
        request_budget=timedelta(seconds=10),  # it shows what is right, not how fast
        request_time_limit=timedelta(hours=1),
    )
    return given.resolved()


def _of_the_view(planned: Planned | str, name: str) -> tuple[tuple[str, ...], bool]:
    if isinstance(planned, str):
        return (f"skipped: {planned}",), False
    subject = next((s for s in planned.plan.subjects if s.name == name and s.kind.endswith("view")), None)
    if subject is None:
        return (f"{name} is as it was at {planned.since.name}",), False
    return tuple(subject_lines(subject)), subject.consequence.refused


def proof_lines(proof: Proof) -> list[str]:
    """Return what a trial proved, for a person; the verdict last."""
    lived = proof.lived
    rows = (
        ", ".join(f"{rows:,} rows in {name}" for name, rows in lived.filled.items()) or "nothing to compute: on demand"
    )
    told = [
        _line("render", f"{proof.rendered.workflows} workflows are what the code renders"),
        *_block("plan", proof.plan),
        _line("back-fill", rows),
        *_block("values", _values(lived)),
        *_block("served", _served(lived)),
        *([_line("", f"not compared: {', '.join(lived.left_out)}")] if lived.left_out else []),
        *(_line("", f"differs: {example}") for example in lived.served.examples),
        _line("history", _history(lived.history)),
        *(_line("", f"differs: {example}") for example in lived.history.examples),
        *_block("model", _model(lived)),
    ]
    verdict = "is in lockstep" if not proof.problems else "is NOT proven in lockstep"
    told += ["", f"{proof.view} {verdict}, {proof.seconds['total']:.0f} s"]
    told += [f"  {problem}" for problem in proof.problems]
    if proof.home:
        told.append(f"kept for a look: {proof.home}")
    return told


def _block(label: str, texts: Iterable[str]) -> list[str]:
    return [_line("" if n else label, text) for n, text in enumerate(texts)]


def _line(label: str, text: str) -> str:
    return f"{label.ljust(_WIDTH)}{text}".rstrip()


def _values(lived: Lived) -> Iterator[str]:
    found = lived.values
    if not lived.filled:
        yield "none are stored"
        return
    ticks = " and ".join(f"{number} {_MODES.get(mode, mode)}" for mode, number in found.ticks.items()) or "no"
    yield f"{found.values:,} of the table against the raw source: {_wrong(found.differing)}"
    yield f"{found.keys} keys at {ticks} ticks; in {found.alive:,} cases a key had a value"
    yield from (f"differs: {example}" for example in found.examples)


def _wrong(differing: Mapping[str, int]) -> str:
    wrong = sum(differing.values())
    return f"{wrong:,} differ{'s' if wrong == 1 else ''}" if wrong else "none differ"


def _served(lived: Lived) -> Iterator[str]:
    held = lived.served
    yield f"{held.rows} of {lived.asked} rows: {', '.join(lived.moments)}"
    if held.status:
        yield ", ".join(f"{number} read {what}" for what, number in sorted(held.status.items()))
    for name, (some, all_of) in held.with_value.items():
        yield f"{some} of {all_of} {'keys' if lived.filled else 'rows'} of {name} had a value at some moment"
    yield f"{held.values:,} values against the lake and training: {_wrong(held.differing)}"


def _history(held: Held) -> str:
    return (
        f"{held.rows:,} rows of the past: {held.values:,} values of training against the definition: "
        f"{_wrong(held.differing)}"
    )


def _model(lived: Lived) -> Iterator[str]:
    report = lived.model
    if report is None:
        yield "none was trained: " + (
            "--quick left it out" if lived.in_model else "the model's service does not read the view"
        )
        return
    yield f"{report.model.name} was trained on {lived.service}, with the view, and served over HTTP in the dark"
    yield (
        f"parity {report.verdict.value}: {report.mismatches} mismatches in {report.sample.uniform} served rows, so less than "
        f"{report.upper_bound:.2%} at {report.confidence:.0%} confidence"
    )


def proof_document(proof: Proof) -> dict[str, Any]:
    """Return what a trial proved, for machines."""
    lived = asdict(proof.lived) | {"model": None}
    if proof.lived.model is not None:
        lived["model"] = proof.lived.model.model_dump(mode="json")
    return {
        "view": proof.view,
        "proven": not proof.problems,
        "problems": list(proof.problems),
        "workflows": proof.rendered.workflows,
        "plan": list(proof.plan),
        **lived,
        "seconds": dict(proof.seconds),
        "home": proof.home,
    }


def show_proofs(proofs: Sequence[Proof], *, as_json: bool) -> None:
    """Print what was proved.

    Raises:
        Refused: something was not.
    """
    if as_json:
        click.echo(json.dumps([proof_document(proof) for proof in proofs], indent=2))
    else:
        for proof in proofs:
            click.echo("\n" + "\n".join(proof_lines(proof)))
    if wrong := [proof.view for proof in proofs if proof.problems]:
        raise Refused(f"not proven in lockstep: {', '.join(wrong)}")

"""`lockstep check`: what is committed is what the code renders, and a cluster would accept and run it as it is meant.

The traps named here are Hera's and Argo's own: each renders or applies without an error and then does something else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hera.workflows import models
from pydantic import ValidationError

from pipelines._checks.lint import lint
from pipelines._checks.metrics import metric_problems
from pipelines._checks.pods import pod_problems, secret_problems
from pipelines._checks.problem import Lines, Problem, located
from pipelines._checks.schedule import schedule_problems
from pipelines._checks.source import SourceProblem, shared_annotations, source_problems
from pipelines._checks.workflow import workflow_problems
from pipelines._manifest.subset import refusals
from pipelines._project import LONGEST_NAME, WORKFLOWS
from pipelines.render import NotRendered, compare, render_all, source_of


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        file: the rendered file, or the Python that does not render.
        line: in it, counted from 1.
        where: the template and task, or the field.
        what: what is wrong.
        hint: what to do.
        source: the Python to edit, where `file` is rendered from it; `file:line` where a line is known.
    """

    file: str
    line: int
    where: str
    what: str
    hint: str = ""
    source: str = ""


def run_checks(root: Path, package: str = "pipelines") -> list[Finding]:
    """Return everything that is wrong with the pipelines of a package and their committed YAML below `root`.

    Raises:
        BadInput: there is no such package.
        UseCaseError: the use case does not import, or names no project.
    """
    findings = [_in_source(problem) for problem in source_problems(package)]
    try:
        files = render_all(package)
    except NotRendered as refused:
        return [*findings, Finding(refused.file, refused.line, "render", refused.what, refused.hint)]
    findings += [_in_source(problem) for problem in shared_annotations(package)]
    findings += [Finding(str(root / d.file), d.line, "committed file", d.what, d.hint) for d in compare(root, files)]
    return [*findings, *check_files(files, root)]


def check_files(files: Mapping[str, str], root: Path = Path()) -> list[Finding]:
    """Return what is wrong with rendered documents, given by path below `root`."""
    texts = {path: text for path, text in files.items() if path != f"{WORKFLOWS}/kustomization.yaml"}
    documents = {path: yaml.load(text, Loader=yaml.CSafeLoader) for path, text in texts.items()}
    library = {d["metadata"]["name"]: d for d in documents.values() if d.get("kind") == "WorkflowTemplate"}
    findings: list[Finding] = []
    for path, document in documents.items():
        problems = list(_problems(document, library))
        lines = Lines(texts[path]) if problems else None
        for p in problems:
            line = lines.line(p.path) if lines else 1
            source = p.source or source_of(texts[path])
            findings.append(Finding(str(root / path), line, p.where, p.what, p.hint, source))
    return findings


def _problems(document: Mapping[str, Any], library: Mapping[str, Any]) -> Iterator[Problem]:
    yield from located(document, (*_shape(document), *_name(document)))
    yield from secret_problems(document)
    if document.get("kind") == "CronWorkflow":
        yield from schedule_problems(document, library)
    elif document.get("kind") == "WorkflowTemplate":
        yield from located(document, _outside_subset(document))
        yield from lint(document, library)
        yield from workflow_problems(document)
        yield from pod_problems(document)
        yield from metric_problems(document, library)


def _shape(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Validate strictly: Hera's models drop unknown fields by default, so a misspelt one would vanish on the cluster."""
    kind = document.get("kind")
    if kind not in ("WorkflowTemplate", "CronWorkflow"):
        yield Problem(("kind",), f"{kind!r} is neither a WorkflowTemplate nor a CronWorkflow")
        return
    try:
        getattr(models, kind).model_validate(document, extra="forbid")
    except ValidationError as invalid:
        for error in invalid.errors():
            field = error["loc"][-1]
            if error["type"] == "extra_forbidden":
                hint = "see the field reference of Argo 4.0: Hera drops what it does not know without an error"
                yield Problem(error["loc"], f"Argo has no field {field!r} here", hint)
            else:
                yield Problem(error["loc"], f"{field!r}: {error['msg']}", "see Argo's field reference")


def _name(document: Mapping[str, Any]) -> Iterator[Problem]:
    name = document["metadata"].get("name", "")
    if len(name) > LONGEST_NAME:
        what = f"{name!r} has {len(name)} characters, more than the {LONGEST_NAME} that Argo allows"
        yield Problem(("metadata", "name"), what, "shorten the pipeline's name: Argo appends a time to it")


def _outside_subset(document: Mapping[str, Any]) -> Iterator[Problem]:
    names = [template.get("name") for template in document["spec"].get("templates", [])]
    for refusal in refusals(document):
        at = ("templates", names.index(refusal.template)) if refusal.template in names else ()
        yield Problem(
            ("spec", *at),
            f"uses {refusal.construct}, which is outside the rendered subset",
            "`lockstep run` could not run it: use a DAG of steps, or extend pipelines/_manifest/subset.py and pipelines/local.py",
        )


def _in_source(problem: SourceProblem) -> Finding:
    return Finding(problem.file, problem.line, "source", problem.what, problem.hint)


__all__ = ["Finding", "check_files", "run_checks"]

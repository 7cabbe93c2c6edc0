"""Run a rendered workflow as a part of something larger: one that fails is an error, with the end of its log."""

import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lockstep.errors import Terminal, Transient
from lockstep.settings import Settings
from pipelines.local import Run, load_library, load_template, run_workflow


def run_rendered(
    settings: Settings, manifests: Path, name: str, parameters: Mapping[str, str], *, tolerate_refusal: bool = False
) -> Run:
    """Run the workflow of a pipeline; its logs are below `home`/runs.

    Args:
        settings: of the home; the environment has to say the same, for that is what steps read.
        manifests: the root of the rendered manifests.
        name: of the pipeline.
        parameters: of the workflow.
        tolerate_refusal: a gate that says no is no error.

    Raises:
        Transient: a step failed, and may succeed when it is tried again.
        Terminal: a step failed.
    """
    manifest = load_template(manifests, name)
    logs = settings.home / "runs" / f"{time.time_ns()}-{name}"
    run = run_workflow(manifest, parameters, logs_dir=logs, library=load_library(manifests, manifest))
    if run.succeeded or (tolerate_refusal and run.exit_code == 3):
        return run
    failed = run.failed
    words = failed.log.read_text().strip() if failed and failed.log else ""
    kind = Transient if run.exit_code == 1 else Terminal
    raise kind(
        f"workflow {name} failed at {failed.name if failed else '?'} (exit {run.exit_code})\n{words[-2000:]}",
        hint=f"its log: {failed.log}" if failed else "",
    )


@contextmanager
def environment_kept(home: Path) -> Generator[None]:
    """Give the variables back as they were; neither a variable nor a settings file of the caller's may steer what is run.

    Args:
        home: whose settings file is read instead; without one named it would be that of `.lockstep` in the current folder.
    """
    before = dict(os.environ)
    for name in [n for n in os.environ if n.startswith("LOCKSTEP_")]:
        del os.environ[name]
    os.environ["LOCKSTEP_HOME"] = str(home)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

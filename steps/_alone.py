"""Run one step by hand: `python -m steps.compute_view --view customer_spend --window-end 2026-01-02T03:00:00Z`.

The options are the fields of the step's `Input`, and what it returns is printed as JSON. Errors and exit codes are the pod's.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from hera.workflows.io import Input, Output
from pydantic import ValidationError
from pydantic_settings import CliApp, CliSettingsSource

from steps._step import as_in_a_pod


def run_alone(step: Callable[..., Any], args: Sequence[str] | None = None) -> NoReturn:
    """Parse the command line, run the step, and end the process as its pod would end.

    Raises:
        SystemExit: always; 2 where the options are not the step's.
    """
    wanted: type[Input] = next(iter(step.__annotations__.values()))
    name = f"python -m steps.{step.__name__}"
    given = list(sys.argv[1:] if args is None else args)
    try:
        options = CliSettingsSource(wanted, cli_prog_name=name, cli_kebab_case=True, cli_enforce_required=True)
        inputs = CliApp.run(wanted, given, cli_settings_source=options)
    except ValidationError as invalid:
        for error in invalid.errors():
            sys.stderr.write(f"{name}: --{'.'.join(map(str, error['loc'])).replace('_', '-')}: {error['msg']}\n")
        raise SystemExit(2) from None
    made: Output = as_in_a_pod(step)(inputs)
    sys.stdout.write(f"{made.model_dump_json(exclude={'exit_code', 'result'})}\n")
    raise SystemExit(made.exit_code or 0)

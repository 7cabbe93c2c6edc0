"""What the scripts share: CPU seconds of this process, a plain table, and the same rows as JSON."""

import gc
import json
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click


def cpu_seconds(run: Callable[[], object]) -> float:
    """Return the user and system seconds this process spends on it, not counting the rubbish of what ran before."""
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF)
    run()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def show(rows: Sequence[Mapping[str, Any]], headings: Mapping[str, str], json_file: Path | None = None) -> None:
    """Print the keys named in `headings` of each row, the first to the left; write all of each row to `json_file`."""
    lines = [list(headings.values()), *([_text(row[key]) for key in headings] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        click.echo("  ".join([first.ljust(widths[0]), *cells]))
    if json_file is not None:
        json_file.write_text(json.dumps(list(rows), indent=2) + "\n")


def _text(value: object) -> str:
    return f"{value:,}".replace(",", " ") if isinstance(value, int | float) else str(value)

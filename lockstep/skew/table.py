"""The laboratory's results as rows of text and as a document for machines."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lockstep.skew.detection import AtSize
from lockstep.skew.harm import Quality
from lockstep.skew.laboratory import Result, Results

Row = tuple[str, ...]
_NONE = "—"
TOUCHED = 0.05
"""From which share of touched rows on a fault counts as one that has to be found."""


def columns(results: Results) -> Row:
    """Return the heads of `row`."""
    found = [head for size in _sizes(results) for head in (f"found/{size}", f"expected/{size}", f"right/{size}")]
    return ("fault", "vectors", "AP", "AUC", f"P@{results.top}", "flips", "answered", *found, "with strata", "named")


def row(results: Results, result: Result) -> Row:
    """Return a fault's line: its harm, how often it was found, how often it should have been, and what it was called."""
    harm, detection = result.harm, result.detection
    clean, faulty = harm.clean, harm.faulty
    found: list[str] = []
    at = {of.size: of for of in detection.sizes}
    for size in _sizes(results):
        if size not in at:
            found += [_NONE, _NONE, _NONE]
            continue
        found += [_share(at[size].recall), _share(detection.theoretical(size)), _right(at[size])]
    strata = max((of.with_strata / of.seeds for of in detection.sizes), default=None)
    return (
        result.fault.name,
        _share(harm.changed),
        _moved(clean, faulty, "average_precision"),
        _moved(clean, faulty, "auc"),
        _moved(clean, faulty, "entity_precision"),
        _share(harm.flipped),
        _answered(result),
        *found,
        _NONE if strata is None else _share(strata),
        _named(result),
    )


def aligned(rows: Sequence[Row]) -> list[str]:
    """Return rows as lines, the first column on the left and numbers on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if number in {0, last} else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(of, widths, strict=True))
        ).rstrip()
        for of in rows
    ]


def summary(results: Results) -> list[str]:
    """Return the sentences that the table is read for."""
    clean = results.results[0]
    at = clean.detection.sizes
    alarms, samples = sum(of.with_strata for of in at), sum(of.seeds for of in at)
    logged = f"of all {clean.detection.pool:,} logged rows {clean.detection.mismatches:.2%} are mismatches"
    told = [f"clean: {alarms} false alarms in {samples:,} samples; {logged}"]
    told += [_found(results.known[1:], size, "faults") for size in _sizes(results)]
    if results.held_out:
        told += [_found(results.held_out, size, "faults held out") for size in _sizes(results)]
    told.append(_missed(results))
    unseen = [
        r.fault.name for r in results.results if r.fault.unseen and any(at.with_strata for at in r.detection.sizes)
    ]
    if unseen:
        told.append(f"found although it need not be: {', '.join(unseen)}")
    return told


def touched(result: Result) -> float:
    """Return the share of the rows that a fault touches: their vector, their score, or whether they are right for the lake."""
    return max(result.harm.changed, result.harm.moved, result.detection.mismatches)


def _found(faults: Sequence[Result], size: int, of: str) -> str:
    every = [(r, at) for r in faults if r.fault.causes for at in r.detection.sizes if at.size == size]
    meant = [at for r, at in every if touched(r) >= TOUCHED]
    of_stratum = [at for r, at in every if max(touched(r), r.detection.of_stratum) >= TOUCHED]
    detections, right = sum(at.with_strata for _, at in every), sum(at.right for _, at in every)
    return (
        f"samples of {size}: of {of} that touch {TOUCHED:.0%} of the rows or more "
        f"{_percent(sum(at.found for at in meant), sum(at.seeds for at in meant))} were found; "
        f"with the stratified sample beside it, of those that touch {TOUCHED:.0%} of the rows of any stratum "
        f"{_percent(sum(at.with_strata for at in of_stratum), sum(at.seeds for at in of_stratum))}; "
        f"the cause was right in {_percent(right, detections)} of all detections"
    )


def _missed(results: Results) -> str:
    """Name the faults with causes of which no sample of any size found anything."""
    missed = [r for r in results.results if r.fault.causes and not any(at.with_strata for at in r.detection.sizes)]
    told = [
        f"{r.fault.name} ({f'touches {_share(touched(r))} of the rows' if r.detection.pool else 'nothing was logged'})"
        for r in missed
    ]
    return f"never found although it has causes: {', '.join(told) or 'none'}"


def document(results: Results) -> dict[str, Any]:
    """Return everything for machines."""
    return {
        "model": {"version": results.version, "digest": results.digest},
        "start": results.start.isoformat(),
        "end": results.end.isoformat(),
        "rows": results.rows,
        "positives": results.positives,
        "top": results.top,
        "threshold": results.threshold,
        "apart_seconds": results.apart.total_seconds(),
        "scale": asdict(results.scale),
        "seconds": round(results.seconds, 1),
        "faults": [
            {
                "name": r.fault.name,
                "says": r.fault.says,
                "causes": sorted(r.fault.causes),
                "also": sorted(r.fault.also),
                "unseen": r.fault.unseen,
                "control": r.fault.control,
                "held_out": r.fault.held_out,
                "harm": asdict(r.harm),
                "touched": touched(r),
                "refused": r.refused,
                "detection": asdict(r.detection),
            }
            for r in results.results
        ],
    }


def _sizes(results: Results) -> list[int]:
    return sorted({of.size for result in results.results for of in result.detection.sizes})


def _moved(clean: Quality | None, faulty: Quality | None, metric: str) -> str:
    if clean is None or faulty is None:
        return _NONE
    by = getattr(faulty, metric) - getattr(clean, metric)
    return "0" if abs(by) < 0.0005 else f"{by:+.3f}"


def _answered(result: Result) -> str:
    harm = result.harm
    told = _share(harm.answered)
    if result.refused:
        told += f" ({max(result.refused, key=result.refused.__getitem__)})"
    return told + (f", fallback {_share(harm.fell_back)}" if harm.fell_back else "")


def _right(at: AtSize) -> str:
    return _share(at.right / at.with_strata) if at.with_strata else _NONE


def _named(result: Result) -> str:
    if not result.detection.pool:
        return "nothing was logged: serving refused"
    return ", ".join(result.detection.named) or _NONE


def _share(share: float) -> str:
    """Write a share; all and nothing are written only where they are meant."""
    if share in {0.0, 1.0}:
        return f"{share:.0%}"
    return f"{min(max(share, 0.001), 0.999):.1%}" if share < 0.1 or share > 0.99 else f"{share:.0%}"


def _percent(part: int, of: int) -> str:
    return f"{part / of:.1%} ({part:,} of {of:,})" if of else "none"

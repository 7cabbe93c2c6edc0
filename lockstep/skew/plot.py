"""Harm beside detection, a line a fault, as one SVG that loads nothing."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from lockstep.skew.laboratory import Result, Results

_LINE, _TOP, _NAMES, _PANEL, _GAP = 17, 46, 370, 250, 40
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1b1f24}.head{font-weight:600}.note{fill:#57606a}"
    ".harm{fill:#b42318}.help{fill:#8c959f}.small{fill:#1a5fb4}.large{fill:none;stroke:#1a5fb4;stroke-width:1.6}"
    ".rule{stroke:#d0d7de}.band{fill:#f6f8fa}.none{fill:#57606a;font-style:italic}"
)


def plot(results: Results) -> str:
    """Return the drawing, the most harmful fault first."""
    shown = sorted(results.results, key=lambda result: -(result.harm.lost or 0.0))
    width, height = _NAMES + 2 * _PANEL + _GAP + 30, _TOP + _LINE * len(shown) + 12
    most = max([abs(result.harm.lost or 0.0) for result in shown] + [0.05])
    sizes = [at.size for at in results.results[0].detection.sizes]
    small, large = (sizes[0], sizes[-1]) if sizes else (0, 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>Average precision lost, and in which share of samples the fault was found</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text class="head" x="{_NAMES}" y="18">average precision lost</text>',
        f'<text class="head" x="{_NAMES + _PANEL + _GAP}" y="18">found by {small} rows (disc), {large} (ring)</text>',
        *_axis(_NAMES, height, [(0.0, "0"), (0.5, f"{most / 2:.2f}"), (1.0, f"{most:.2f}")]),
        *_axis(_NAMES + _PANEL + _GAP, height, [(0.0, "0 %"), (0.5, "50 %"), (1.0, "100 %")]),
    ]
    for number, result in enumerate(shown):
        parts += _drawn(result, _TOP + _LINE * number, most, (small, large), banded=number % 2 == 0, width=width)
    return "\n".join([*parts, "</svg>", ""])


def _axis(left: int, height: int, marks: Sequence[tuple[float, str]]) -> list[str]:
    return [
        f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height - 8}"/>'
        f'<text class="note" text-anchor="middle" x="{x:.1f}" y="{_TOP - 10}">{label}</text>'
        for x, label in ((left + share * _PANEL, label) for share, label in marks)
    ]


def _drawn(result: Result, y: int, most: float, sizes: tuple[int, int], *, banded: bool, width: int) -> list[str]:
    middle, right = y + _LINE / 2, _NAMES + _PANEL + _GAP
    parts = (
        [f'<rect class="band" x="0" y="{y}" width="{width}" height="{_LINE}" fill-opacity="0.6"/>'] if banded else []
    )
    parts.append(f'<text text-anchor="end" x="{_NAMES - 10}" y="{middle + 4:.1f}">{escape(result.fault.name)}</text>')
    if (lost := result.harm.lost) is None:
        parts.append(f'<text class="none" x="{_NAMES + 6}" y="{middle + 4:.1f}">serving refused</text>')
    else:
        kind = "harm" if lost >= 0 else "help"
        long = max(abs(lost) / most * _PANEL, 1)
        parts.append(
            f'<rect class="{kind}" x="{_NAMES}" y="{y + 4}" width="{long:.1f}" height="{_LINE - 8}">'
            f"<title>{lost:+.3f}</title></rect>"
        )
    at = {of.size: of.recall for of in result.detection.sizes}
    small, large = sizes
    if large in at:
        parts.append(f'<circle class="large" cx="{right + at[large] * _PANEL:.1f}" cy="{middle:.1f}" r="6"/>')
    if small in at:
        parts.append(f'<circle class="small" cx="{right + at[small] * _PANEL:.1f}" cy="{middle:.1f}" r="3.4"/>')
    return parts

"""The results as a drawing for the README: a panel for each scenario, a bar for each contestant, short is good.

An SVG with no fonts, scripts or libraries; it follows the reader's light or dark mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from benchmarks.contestants import CONTESTANTS
from benchmarks.report import OURS, number
from benchmarks.results import Measured, Results
from benchmarks.scenarios import BY_NAME

PANELS: Sequence[tuple[str, str]] = (
    ("json:16", "Whole answers"),
    ("paced:400", "Streams, passed on"),
    ("anthropic:200", "Anthropic to OpenAI; the others pass on"),
    ("big:4", "Prompts of 400 KB"),
)
WIDTH, MARGIN, GUTTER = 860, 16, 40
PANEL = (WIDTH - 2 * MARGIN - GUTTER) / 2
LABEL, VALUE = 116, 62
BAR, STEP, HEAD, FOOT = 16, 24, 40, 20
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px }
.quiet { fill: #59636e }
.ours { font-weight: 700; fill: #0a6c74 }
rect { fill: #b6bec8 }
rect.ours { fill: #0f8b8d }
.gap { stroke: #ffffff; stroke-width: 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .quiet { fill: #9198a1 }
  .ours { fill: #4fd1c5 }
  rect { fill: #57606a }
  rect.ours { fill: #2bb3a8 }
  .gap { stroke: #0d1117 }
}
"""


def draw(results: Results) -> str:
    """The whole drawing; what was not measured has no panel."""
    shown = [(name, title) for name, title in PANELS if _measured(results, name)]
    names = _taking_part(results.scenarios[name] for name, _ in shown)
    height = HEAD + STEP * len(names) + FOOT
    panels = [
        _panel(MARGIN + (PANEL + GUTTER) * (place % 2), height * (place // 2), title, name, results.scenarios[name])
        for place, (name, title) in enumerate(shown)
    ]
    total = height * ((len(shown) + 1) // 2) + FOOT
    note = _text(MARGIN, total - 8, _note(results), "quiet")
    size = f'viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" height="{total}"'
    inside = "\n".join([f"<style>{STYLE}</style>", *panels, note])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n{inside}\n</svg>\n'


def _measured(results: Results, name: str) -> bool:
    return name in results.scenarios and bool(results.scenarios[name].contestants)


def _taking_part(measured: Iterable[Measured]) -> list[str]:
    found = {name for each in measured for name in each.contestants}
    return [each.name for each in CONTESTANTS if each.name in found]


def _note(results: Results) -> str:
    machine = results.machine
    return f"CPU time of the proxy on one core, shorter is better. {machine.get('cpu', '')}, make bench"


def _panel(left: float, top: float, title: str, name: str, measured: Measured) -> str:
    row = BY_NAME[name]
    values = {each: measured.median(each, row.figure) or 0.0 for each in _taking_part([measured])}
    longest = scale(list(values.values()))
    lines = [_text(left, top + 24, title, "title"), _text(left + PANEL, top + 24, row.unit, "quiet", "end")]
    for place, (contestant, value) in enumerate(values.items()):
        lines.append(_bar(left, top + HEAD + STEP * place, contestant, value, longest))
    return "\n".join(lines)


def _bar(left: float, top: float, contestant: str, value: float, longest: float) -> str:
    titles = {each.name: each.title for each in CONTESTANTS}
    room = PANEL - LABEL - VALUE
    long, start, kind = min(value / longest, 1.0) * room, left + LABEL, "ours" if contestant == OURS else ""
    parts = [
        _text(left, top + 13, titles[contestant], kind),
        f'<rect class="{kind}" x="{start:.1f}" y="{top:.1f}" width="{long:.1f}" height="{BAR}" rx="2"/>',
        _text(start + long + 6, top + 13, number(value), kind or "quiet"),
    ]
    if value > longest:
        cut = start + room * 0.86
        parts.append(f'<path class="gap" d="M{cut:.1f} {top + BAR + 2:.1f}l8 -{BAR + 4}"/>')
    return "\n".join(parts)


def scale(values: Sequence[float]) -> float:
    """The value of a full bar: the largest, or a quarter more than the second when one is far beyond all others."""
    second, largest = sorted([0.0, *values])[-2:]
    return largest if largest <= 2 * second or not second else second * 1.25


def _text(left: float, top: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}">{escape(text)}</text>'

"""The results as tables in Markdown: one for each scenario, and one with all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.contestants import CONTESTANTS
from benchmarks.results import Measured, Results
from benchmarks.scenarios import SCENARIOS, Scenario

BASELINES = ("nginx", "aiohttp")
OURS = "sluiceway"
TITLES = {each.name: each.title for each in CONTESTANTS}
ORDER = {each.name: place for place, each in enumerate(CONTESTANTS)}


def number(value: float | None) -> str:
    """Three digits that count; a dash for what was not measured."""
    if value is None:
        return "–"
    if not value:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def time(micro: float | None) -> str:
    """Microseconds, from ten thousand on as milliseconds."""
    if micro is None or micro < 10_000:
        return f"{number(micro)} µs" if micro is not None else "–"
    return f"{number(micro / 1000)} ms"


def mebibytes(size: float | None) -> str:
    """Bytes as MiB."""
    return "–" if size is None else f"{number(size / 2**20)} MiB"


def times(ratio: float | None) -> str:
    """A ratio with its sign."""
    return "–" if ratio is None else f"{number(ratio)}×"


def percent(share: float | None) -> str:
    """A share of one."""
    return "–" if share is None else f"{share:.0%}"


# What may stand beside a scenario's figure, with its heading.
COLUMNS: Sequence[tuple[str, str, Callable[[float | None], str]]] = (
    ("share", "of a served request", percent),
    ("cpu", "CPU", time),
    ("direct", "without it", time),
    ("rate", "per second", number),
    ("p50", "p50", time),
    ("p99", "p99", time),
    ("max", "longest", time),
    ("longest", "longest, ms", number),
    ("late", "in the second half", number),
    ("taken", "MiB from upstream", number),
    ("memory", "memory", mebibytes),
    ("left", "upstream answers left behind", number),
)


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows as a Markdown table whose first row is its head; all columns but the first to the right."""
    head, *body = rows
    widths = [max(len(row[place]) for row in (head, *body)) for place in range(len(head))]
    rule = ["-" * width if not place else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return "\n".join(_line(row, widths) for row in (head, rule, *body))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.rjust(width) if place else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return f"| {' | '.join(cells)} |"


def scenario(row: Scenario, measured: Measured) -> str:
    """One scenario's table, a line for each contestant."""
    shown = [each for each in COLUMNS if each[0] != row.figure and _has(measured, each[0])]
    head = ["", row.unit, "best", *(f"× {TITLES[base]}" for base in BASELINES)]
    lines = [[*head, *(heading for _, heading, _ in shown)]]
    for name in sorted(measured.contestants, key=lambda each: ORDER.get(each, len(ORDER))):
        found = measured.figures(name, row.figure)
        best = max(found) if row.figure == "rate" else min(found)
        ratios = [times(measured.ratio(name, base, row.figure)) for base in BASELINES]
        rest = [form(measured.median(name, figure)) for figure, _, form in shown]
        lines.append([TITLES.get(name, name), number(measured.median(name, row.figure)), number(best), *ratios, *rest])
    absent = [f"\n{TITLES.get(name, name)} is left out: {why}" for name, why in measured.absent.items()]
    return "\n".join([f"**{row.name}** {row.title}\n", table(lines), *absent])


def overview(results: Results) -> str:
    """All scenarios that cost something: each contestant's figure, and our ratios to nginx and to plain aiohttp."""
    rows = [row for row in SCENARIOS if row.name in results.scenarios and row.figure != "rate"]
    measured = {row: results.scenarios[row.name] for row in rows}
    taking_part = {name for each in measured.values() for name in each.contestants}
    names = [each.name for each in CONTESTANTS if each.name in taking_part]
    ratios = [f"{TITLES[OURS]} × {TITLES[base]}" for base in BASELINES]
    lines = [["scenario", "unit", *(TITLES[name] for name in names), *ratios]]
    for row, each in measured.items():
        values = [number(each.median(name, row.figure)) for name in names]
        lines.append([row.name, row.unit, *values, *(times(each.ratio(OURS, base, row.figure)) for base in BASELINES)])
    return table(lines)


def measured_on(results: Results) -> str:
    """Everything, as the last section of a document."""
    machine, rows = results.machine, [row for row in SCENARIOS if row.name in results.scenarios]
    day = max(results.scenarios[row.name].at for row in rows)[:10]
    about = (
        f"Last on {day}, {machine['cores']} cores of {machine['cpu']}, {machine['system']}, Python {machine['python']}."
        " Medians; a dash is for who was left out, for the reason below."
    )
    details = (scenario(row, results.scenarios[row.name]) for row in rows)
    return "\n\n".join([about, overview(results), *details]) + "\n"


def _has(measured: Measured, figure: str) -> bool:
    return any(measured.figures(name, figure) for name in measured.contestants)

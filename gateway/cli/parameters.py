"""The tables of every provider as Markdown: `python -m gateway.cli.parameters > docs/parameters.md`."""

from __future__ import annotations

from gateway.config.models import abilities_of, rows
from gateway.config.plugins import BUILT_IN, Registry
from gateway.contract import Provider, Row, Target
from gateway.hub import PARAMS

INTRO = """# Parameters

What happens to every request parameter at every provider. This page is generated from the tables that the transforms
use (`make docs`); `GET /v1/capabilities` and `sluiceway explain` print the same.

`forward`: as it is. `rename`: the same value under another name. `convert`: another value with the same meaning.
`emulate`: achieved by other means. `drop`: left out and named in `x-gateway-dropped-params` (refused where the
deployment says `unsupported_params: reject`). `reject`: always refused, because the answer's shape would change.

What stands inside messages and tools and has no equivalent is named in the same header as `messages.name`,
`messages.image_url.detail`, `cache_control`, `cache_control.ttl` or `tools.function.strict`.
"""


def page() -> str:
    """The whole page."""
    providers = Registry()
    return "\n".join([INTRO, *(_section(providers[name]) for name in BUILT_IN)])


def _section(provider: Provider) -> str:
    families = _families(provider)
    default = _table(provider, "")
    lines = [f"## {provider.name}\n", "| parameter | decision | travels as | note |", "|---|---|---|---|"]
    lines += [_line(name, default[name]) for name in sorted(PARAMS)]
    lines.append("")
    seen: list[tuple[str, list[str]]] = []
    for family in families:
        table = _table(provider, family)
        other = [f"`{name}` {_short(table[name])}" for name in sorted(PARAMS) if _differs(table[name], default[name])]
        if other:
            seen.append((family, other))
    if seen:
        lines.append("Where a model family differs:\n")
        lines += [f"- `{family}`: {', '.join(other)}" for family, other in seen]
        lines.append("")
    return "\n".join(lines)


def _families(provider: Provider) -> list[str]:
    """One example name for each pattern of the provider's capability file."""
    if not provider.models:
        return []
    patterns: list[str] = []
    for row in rows(provider.models):
        patterns += [row["match"]] if isinstance(row["match"], str) else list(row["match"])
    return list(dict.fromkeys(pattern for pattern in patterns if pattern.strip("*")))


def _table(provider: Provider, family: str) -> dict[str, Row]:
    name = family.replace("*", "")
    return dict(
        provider.table(Target(provider.name, name, provider.base_url, name, abilities=abilities_of(provider, name)))
    )


def _differs(row: Row, other: Row) -> bool:
    return (row.decision, row.to) != (other.decision, other.to)


def _short(row: Row) -> str:
    return f"{row.decision} as `{row.to}`" if row.to else row.decision


def _line(name: str, row: Row) -> str:
    to = f"`{row.to}`" if row.to else ""
    return f"| `{name}` | {row.decision} | {to} | {row.note} |"


if __name__ == "__main__":
    print(page(), end="")

"""Every option of gateway.yaml as Markdown: `python -m gateway.cli.reference > docs/configuration.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from gateway.cli.meanings import MEANINGS, OWN
from gateway.cli.yamltext import flow
from gateway.config.plugins import BUILT_IN, Registry
from gateway.config.reader import kind_of
from gateway.config.secrets import Pem
from gateway.config.types import NAMES, Config, ProviderEntry
from gateway.config.units import UNITS, WRITTEN
from gateway.config.unsupported import UNSUPPORTED
from gateway.config.writer import plain_default
from gateway.contract import Provider

INTRO = """# Configuration

Every option of `gateway.yaml`. This page is generated from the types that the checker reads (`make docs`).
`sluiceway schema` prints the same for editors, `sluiceway check` reports every mistake with its line, and
`sluiceway config show` prints what a file comes to.

A secret is a reference: `{env: NAME}`, `{file: path}` or `{credential: name}` (systemd's LoadCredential=). Written out
it is a warning, an error with `--strict`. Below `providers`, `deployments`, `adapters`, `routings` and `keys` stand
names of your own; deployments, adapters and routings share one name space. Unknown options are errors.
"""


def page() -> str:
    """The whole page."""
    places = _places()
    lines = [INTRO, *_units()]
    for cls, title in places.items():
        lines += _Section(places).lines(cls, title)
        if cls is ProviderEntry:
            lines += _providers()
    return "\n".join([*lines, *_refused()]).rstrip() + "\n"


def options() -> Iterator[str]:
    """`Type.option` for every option of the types."""
    for cls in _places():
        yield from (f"{cls.__name__}.{field.name}" for field in _fields(cls))


def _places() -> dict[type, str]:
    """The types of maps with options, the outer before the inner, and where they stand in the file."""
    found: dict[type, list[str]] = {}
    _walk(kind_of(Config), "", found)
    return {cls: paths[0] if len(paths) == 1 else paths[0].rpartition(".")[2] for cls, paths in found.items()}


def _walk(kind: inspect.Type, path: str, found: dict[type, list[str]]) -> None:
    if isinstance(kind, inspect.StructType):
        found.setdefault(kind.cls, []).append(path)
        if len(found[kind.cls]) > 1:
            return
        for field in _fields(kind.cls):
            _walk(field.type, f"{path}.{field.name}" if path else field.name, found)
    named = isinstance(kind, inspect.Metadata) and NAMES in (kind.extra or {})
    for inner in _inside(kind):
        _walk(inner, f"{path}.*" if named else path, found)


def _inside(kind: inspect.Type) -> list[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        return [kind.type]
    if isinstance(kind, inspect.DictType):
        return [kind.value_type]
    if isinstance(kind, inspect.VarTupleType):
        return [kind.item_type]
    return list(kind.types) if isinstance(kind, inspect.UnionType) else []


def _fields(cls: type) -> list[inspect.Field]:
    kind = kind_of(cls)
    assert isinstance(kind, inspect.StructType)
    return [field for field in kind.fields if not (cls is ProviderEntry and field.name == "options")]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


class _Section:
    """Describes a type; `places` are the titles of all sections, to link to."""

    def __init__(self, places: Mapping[type, str]) -> None:
        self._places = places
        self._kinds: Mapping[type, Callable[[Any], str]] = {
            inspect.StructType: lambda kind: self._link(kind.cls),
            inspect.DictType: lambda kind: f"map to {self._value(kind.value_type)}",
            inspect.VarTupleType: lambda kind: f"list of {self._value(kind.item_type)}",
            inspect.UnionType: self._union,
            inspect.LiteralType: lambda kind: ", ".join(f"`{each}`" for each in kind.values),
            inspect.Metadata: self._annotated,
            inspect.StrType: lambda kind: f"text like `{kind.pattern}`" if kind.pattern else "text",
            inspect.IntType: lambda kind: f"whole number, {kind.ge:,} to {kind.le:,}",
            inspect.FloatType: lambda kind: f"number, {kind.ge:,} to {kind.le:,}",
            inspect.BoolType: lambda _: "`true`, `false`",
            inspect.AnyType: lambda _: "anything",
            inspect.CustomType: lambda kind: "the path of a file" if kind.cls in (Path, Pem) else "a secret",
            inspect.DataclassType: lambda kind: WRITTEN[kind.cls].example,
        }

    def lines(self, cls: type, title: str) -> list[str]:
        """The section: what the type is, and a row for each option."""
        about = " ".join((cls.__doc__ or "").split())
        head = f"## {title or 'The file'}\n"
        lines = [head, f"{about}\n", "| option | value | default | |", "|---|---|---|---|"]
        for field in _fields(cls):
            meaning = MEANINGS.get(f"{cls.__name__}.{field.name}", "")
            value = _cell(self._value(field.type))
            lines.append(f"| `{field.name}` | {value} | {_default(field)} | {_cell(meaning)} |")
        return [*lines, ""]

    def _value(self, kind: inspect.Type) -> str:
        """What may stand there."""
        return self._kinds[type(kind)](kind)

    def _link(self, cls: type) -> str:
        title = self._places[cls]
        return f"[{title}](#{''.join(char for char in title.lower() if char.isalnum() or char in '-_')})"

    def _annotated(self, kind: inspect.Metadata) -> str:
        extra = kind.extra or {}
        if "unit" in extra:
            return UNITS[extra["unit"]].example
        if "reference" in extra:
            return "text, or a reference"
        return self._value(_inside(kind.type)[0] if NAMES in extra else kind.type)

    def _union(self, kind: inspect.UnionType) -> str:
        inner = [self._value(each) for each in kind.types if not isinstance(each, inspect.NoneType)]
        return " or ".join([*inner, "`null`"])


def _default(field: inspect.Field) -> str:
    if field.required:
        return "**must be written**"
    if field.default is msgspec.NODEFAULT or field.default == "" or isinstance(field.default, msgspec.Struct):
        return ""
    return f"`{flow(plain_default(field.type, field.default))}`"


def _units() -> list[str]:
    lines = ["| kind of value | written as |", "|---|---|"]
    lines += [f"| {name} | {_cell(unit.example)} |" for name, unit in UNITS.items()]
    lines += [f"| {cls.__name__.lower()} | {_cell(unit.example)} |" for cls, unit in WRITTEN.items()]
    return [*lines, ""]


def _providers() -> list[str]:
    providers = Registry()
    lines = ["| type | address | key in the environment |", "|---|---|---|"]
    lines += [_provider(name, providers[name]) for name in BUILT_IN]
    lines += ["", "A type's own options:\n", "| type | option | |", "|---|---|---|"]
    for name in BUILT_IN:
        known = OWN.get(name, {})
        lines += [f"| `{name}` | `{each}` | {_cell(known.get(each, ''))} |" for each in sorted(providers[name].options)]
    return [*lines, ""]


def _provider(name: str, provider: Provider) -> str:
    return f"| `{name}` | `{provider.base_url}` | `{provider.env}` |"


def _refused() -> list[str]:
    """Options that the types have and `check` refuses."""
    if not UNSUPPORTED:
        return []
    rows = [f"| `{row.pattern}` | {_cell(row.reason)} |" for row in UNSUPPORTED]
    return [
        "## Not supported yet\n",
        "`check` refuses these, so that nobody relies on them.\n",
        "| | |",
        "|---|---|",
        *rows,
    ]


if __name__ == "__main__":
    print(page(), end="")

"""LiteLLM's file as its own reader sees it, and what that reader passes over in silence."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gateway.cli.litellm.report import Row

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH = 64


class Unreadable(Exception):
    """The source cannot be read; the message says why."""


def read(path: str) -> tuple[Mapping[str, Any], list[Row]]:
    """The file's values, and a row for every key that is written twice; raises Unreadable and OSError."""
    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
        rows = list(_repeated(yaml.compose(text, Loader=_LOADER), "", 0))
        values = yaml.load(text, Loader=_LOADER)
    except UnicodeDecodeError:
        raise Unreadable("not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        raise Unreadable(f"not valid YAML: {getattr(error, 'problem', None) or 'it cannot be read'}{place}") from None
    except (ValueError, RecursionError):
        raise Unreadable("not valid YAML: a value that cannot be read") from None
    if not isinstance(values, Mapping):
        raise Unreadable("the top level must be a map (model_list:, router_settings:, ...)")
    return values, rows


def _repeated(node: Any, where: str, depth: int) -> Iterator[Row]:
    """Keys that are written twice in one map, by their path."""
    if depth > MAX_DEPTH:
        raise Unreadable(f"nested deeper than {MAX_DEPTH} levels, or around in a circle")
    if isinstance(node, yaml.SequenceNode):
        for index, each in enumerate(node.value):
            yield from _repeated(each, f"{where}[{index}]", depth + 1)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            place = f"{where}.{name}" if where else name
            if name in seen and name != "<<":
                line = key.start_mark.line + 1
                yield Row(
                    place, "unsupported", note=f"written again in line {line}: the last one counts, as in LiteLLM"
                )
            seen.add(name)
            yield from _repeated(value, place, depth + 1)

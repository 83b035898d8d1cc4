"""The rules of the house: floors, pure plugins, docstrings, sizes. A list of exemptions may only shrink."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.models import abilities_of
from gateway.config.plugins import BUILT_IN
from gateway.contract import Provider, Target
from gateway.fields import missing
from gateway.hub import PARAMS

ROOT = Path(__file__).resolve().parents[1]
GATEWAY = sorted((ROOT / "gateway").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
SOURCE = GATEWAY + PLUGINS

# A room imports only from rooms on floors below its own. A new room gets its place here, as low as its imports allow.
ROOMS = (
    ("__init__", "errors", "hub"),
    ("contract",),
    (
        *(
            "abilities",
            "auth",
            "bucket",
            "conversation",
            "cors",
            "egress",
            "envelope",
            "eventstream",
            "fields",
            "health",
            "limits",
        ),
        *("prices", "purses", "refusals", "sigv4", "sse", "strategies", "systemd", "timers", "urls", "usage", "vitals"),
    ),
    ("config", "dialects", "log", "quotas", "relay", "traits"),
    (
        "access",
        "credentials",
        "demo",
        "handover",
        "keylimits",
        "listeners",
        "memory",
        "metrics",
        "routes",
        "upstream",
        "watchdog",
    ),
    ("exposition", "front", "images", "plan", "pump", "router", "sharing", "statefile", "status", "tracing", "visits"),
    ("admin", "capabilities", "doorstep", "exchange", "fastlane", "intake"),
    ("fan", "gauges", "pages"),
    ("attempts", "lifecycle"),
    ("mirror", "supervisor"),
    ("proxy",),
    ("assembly", "lane"),
    ("serving",),
    ("worker",),
    ("app",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
SEEN_BY_PLUGINS = 2
# What a family of providers shares: OpenAI's dialect, in files of its own.
FAMILY = "plugins.openai_"

IMPURE = frozenset(
    (
        *("asyncio", "time", "os", "random", "logging", "aiohttp", "socket", "threading", "pathlib"),
        *(
            "secrets",
            "uuid",
            "subprocess",
            "multiprocessing",
            "concurrent",
            "ssl",
            "urllib.request",
            "http",
            "sys",
            "io",
        ),
    )
)
MAKERS = frozenset(("list", "dict", "set", "bytearray", "deque", "defaultdict", "OrderedDict", "Counter", "count"))
CHANGERS = frozenset(("append", "add", "update", "extend", "insert", "pop", "clear", "setdefault", "remove", "discard"))

MAX_LINES = 400
MAX_FUNCTION = 50
LONG_FILES: frozenset[str] = frozenset()
LONG_FUNCTIONS: frozenset[str] = frozenset()
# Called by asyncio, aiohttp or the C parser, which say what they are for.
CALLBACKS = frozenset(
    (
        *("connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing"),
        *("on_message_begin", "on_headers_complete", "on_chunk_header", "on_chunk_complete", "on_message_complete"),
    )
)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name(path))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: imports are absolute"
            inside = node.module in {"gateway", "plugins"}
            yield from (f"{node.module}.{alias.name}" if inside else str(node.module) for alias in node.names)


def room(module: str) -> str:
    """The room of `gateway.ROOM...`; what `gateway` itself holds is in its `__init__`."""
    found = module.split(".")[1]
    return found if (ROOT / "gateway" / found).is_dir() or (ROOT / "gateway" / f"{found}.py").is_file() else "__init__"


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def each(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("path", paths, ids=name)


# Floors.


@each(GATEWAY)
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(ROOT / "gateway").with_suffix("").parts[0]
    assert own in FLOOR, f"the room '{own}' has no floor yet: give it one in {name(Path(__file__))}"
    for module in imports(path):
        assert not module.startswith("plugins"), f"{name(path)} imports {module}: plugins are reached by configuration"
        if module.startswith("gateway.") and (other := room(module)) != own:
            assert FLOOR[other] < FLOOR[own], (
                f"{name(path)} (floor {FLOOR[own]}) imports {module} (floor {FLOOR[other]})"
            )


def test_every_room_with_a_floor_exists() -> None:
    rooms = {path.relative_to(ROOT / "gateway").with_suffix("").parts[0] for path in GATEWAY}
    assert set(FLOOR) <= rooms


@each(PLUGINS)
def test_plugins_see_the_lowest_floors_and_their_own_family(path: Path) -> None:
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts[:2])
    for module in imports(path):
        if module.startswith("gateway."):
            assert FLOOR[room(module)] <= SEEN_BY_PLUGINS, f"{name(path)} imports {module}"
        elif module.startswith("plugins."):
            assert f"{module}.".startswith(f"{own}.") or module.startswith(FAMILY), f"{name(path)} imports {module}"


# Plugins are pure.


@each(PLUGINS)
def test_plugins_import_nothing_that_acts(path: Path) -> None:
    for module in imports(path):
        assert module not in IMPURE, f"{name(path)} imports {module}"
        assert module.split(".")[0] not in IMPURE, f"{name(path)} imports {module}"


@each(PLUGINS)
def test_plugins_never_wait_print_or_open(path: Path) -> None:
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith), name(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "print", "input", "exec", "eval", "__import__"}, name(path)


def assigned(path: Path) -> Iterator[tuple[str, ast.expr]]:
    """Names that a module sets, with their values."""
    for node in tree(path).body:
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


def makes_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        called = value.func.id if isinstance(value.func, ast.Name) else getattr(value.func, "attr", "")
        return called in MAKERS
    return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


@each(PLUGINS)
def test_plugins_keep_no_state(path: Path) -> None:
    constants = {target for target, _ in assigned(path) if target.isupper()}
    for target, value in assigned(path):
        assert target.isupper() or target == "__all__" or not makes_mutable(value), f"{name(path)}: {target}"
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.Global), name(path)
        written = node.value if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGERS:
            written = node.func.value
        if isinstance(written, ast.Name):
            assert written.id not in constants, f"{name(path)} changes {written.id}"


def test_the_checks_find_what_they_are_for(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("seen = {}\nGOOD = {}\nalso: list = []\nmade = dict()\nfine = (1,)\n")
    parsed = ast.parse(bad.read_text())
    values = [node.value for node in parsed.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    assert [makes_mutable(value) for value in values if value is not None] == [True, True, True, True, False]
    assert room("gateway.upstream.pool") == "upstream"
    assert room("gateway.__version__") == "__init__"
    assert provider_comparisons(ast.parse("if attempt.provider.name == 'xai': pass")) == [1]
    assert provider_comparisons(ast.parse("x = kind in ('openai', 'xai')")) == [1]
    assert provider_comparisons(ast.parse("x = provider == other")) == [1]
    assert provider_comparisons(ast.parse("x = dialect.name == wanted")) == []


# The core knows no provider by name.


def provider_comparisons(parsed: ast.AST) -> list[int]:
    """The lines where a provider, its name or its type is compared, or anything with the name of a provider."""
    found = []
    for node in ast.walk(parsed):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            texts = [ast.unparse(side) for side in sides]
            constants = {leaf.value for side in sides for leaf in ast.walk(side) if isinstance(leaf, ast.Constant)}
            named = any(re.search(r"(^|[._])provider(\.name|\.type)?$", text) for text in texts)
            if constants & set(BUILT_IN) or (named and constants != {None}):
                found.append(node.lineno)
    return found


# The demo plays the providers, so it has to know which one it is.
PLAYERS = [path for path in GATEWAY if path.is_relative_to(ROOT / "gateway" / "demo")]


@each([path for path in GATEWAY if path not in PLAYERS])
def test_the_core_never_asks_which_provider_it_is(path: Path) -> None:
    assert provider_comparisons(tree(path)) == [], name(path)


# What every file owes its reader.


def documented(path: Path) -> Iterator[tuple[str, bool]]:
    """Every public module, class and function that does something, and whether it has a docstring."""
    yield name(path), ast.get_docstring(tree(path)) is not None
    places: list[ast.Module | ast.ClassDef] = [tree(path)]
    for place in places:
        for node in place.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, ast.get_docstring(node) is not None
                places.append(node)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and acts(node):
                yield node.name, ast.get_docstring(node) is not None


def acts(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Is the function public, with a body that is more than `...`?"""
    return not node.name.startswith("_") and ast.unparse(node.body[0]) != "..."


@each(SOURCE)
def test_everything_public_says_what_it_is_for(path: Path) -> None:
    assert [public for public, said in documented(path) if not said and public not in CALLBACKS] == []


def test_every_callback_without_a_docstring_is_still_there() -> None:
    assert {public for path in SOURCE for public, said in documented(path) if not said} >= CALLBACKS


@each(SOURCE)
def test_nothing_is_left_for_later(path: Path) -> None:
    assert re.findall(r"\b(?:TODO|FIXME|XXX|HACK|NotImplementedError)\b", path.read_text()) == []


@each([path for path in SOURCE if name(path) not in LONG_FILES])
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@each(SOURCE)
def test_functions_are_short(path: Path) -> None:
    long = [each.name for each in functions(path) if (each.end_lineno or 0) - each.lineno >= MAX_FUNCTION]
    assert [each for each in long if each not in LONG_FUNCTIONS] == []


def test_no_exemption_outlives_its_need() -> None:
    assert {name(path) for path in SOURCE if len(path.read_text().splitlines()) > MAX_LINES} == LONG_FILES
    long = {
        each.name for path in SOURCE for each in functions(path) if (each.end_lineno or 0) - each.lineno >= MAX_FUNCTION
    }
    assert long == LONG_FUNCTIONS


# No parameter is lost because nobody thought of it.


@functools.cache
def provider(kind: str) -> Provider:
    module = __import__(f"plugins.{kind}", fromlist=["PROVIDER"])
    found = module.PROVIDER
    assert isinstance(found, Provider)
    return found


def sample(pattern: str) -> str:
    """A model family that a pattern matches."""
    return re.sub(r"\[(.)[^\]]*\]", r"\1", pattern).replace("*", "").replace("?", "x")


def families() -> Iterator[Any]:
    for kind in BUILT_IN:
        yield pytest.param(kind, "", id=f"{kind}:none")
        yield pytest.param(kind, "a-model-that-nobody-knows", id=f"{kind}:unknown")
        if resource := provider(kind).models:
            for row in yaml.safe_load((ROOT / resource).read_text()):
                patterns = [row["match"]] if isinstance(row["match"], str) else row["match"]
                for pattern in patterns:
                    yield pytest.param(kind, sample(pattern), id=f"{kind}:{pattern}")


@pytest.mark.parametrize(("kind", "family"), list(families()))
def test_every_table_decides_about_every_parameter(kind: str, family: str) -> None:
    one = provider(kind)
    target = Target(kind, family, "https://p.test", family, abilities=abilities_of(one, family))
    table = one.table(target)
    assert missing(table, PARAMS) == set()
    assert [row for row in table.values() if row.decision in {"drop", "reject", "emulate"} and not row.note] == []
    assert [row for row in table.values() if row.decision == "rename" and not row.to] == []

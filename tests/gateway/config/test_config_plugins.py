"""Provider types by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import plugins
from gateway.config.plugins import BUILT_IN, NoProvider, Registry, load_providers, provider
from gateway.contract import Provider

INSTALLED = """\
from dataclasses import replace
from plugins.xai import PROVIDER as XAI
PROVIDER = replace(XAI, name="acme")
"""


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules belong to the package `plugins`."""
    monkeypatch.setattr(plugins, "__path__", [*plugins.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution that is installed: its modules and its entry points."""
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[gateway.providers]\nacme = acme_plugin:PROVIDER\nempty = acme_plugin:replace\ngone = no_such_module:X\n"
    )
    (tmp_path / "acme_plugin.py").write_text(INSTALLED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_type_that_comes_along_is_a_provider(name: str) -> None:
    assert provider(name).name == name


def test_several_types_are_loaded_at_once() -> None:
    assert {name: each.name for name, each in load_providers(["openai", "xai"]).items()} == {
        "openai": "openai",
        "xai": "xai",
    }


@pytest.mark.parametrize("name", ["../../tmp/x", "a/b", "os.path", "", "Openai", "x" * 100, "openai\n", "-x", "ä"])
def test_a_type_is_never_a_path(name: str) -> None:
    with pytest.raises(NoProvider, match="never a path"):
        provider(name)


@pytest.mark.parametrize(("name", "near"), [("opena", "openai"), ("antropic", "anthropic"), ("openai_like", "openai")])
def test_an_unknown_type_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(NoProvider, match=f"no provider type '{name}' \\(did you mean '{near}'\\?\\)"):
        provider(name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('x')", "'odd' cannot be imported: RuntimeError: x"),
        ("import sys; sys.exit(3)", "'odd' cannot be imported: SystemExit: 3"),
        ("import no_such_thing", "'odd' cannot be imported: ModuleNotFoundError"),
        ("def", "'odd' cannot be imported: SyntaxError"),
        ("PROVIDER = 7", "'odd' is a int, not a gateway.contract.Provider"),
        ("", "no provider type 'odd'"),
    ],
)
def test_a_plugin_that_is_none_is_told(source: str, message: str, beside: Path) -> None:
    (beside / "odd.py").write_text(source)
    with pytest.raises(NoProvider, match=message):
        provider("odd")


def test_an_installed_plugin_is_found_by_its_entry_point(installed: Path) -> None:
    registry = Registry()
    assert isinstance(registry["acme"], Provider)
    assert registry["acme"] is registry["acme"]
    assert {"acme", *BUILT_IN} <= set(registry)
    assert len(registry) == len(set(registry))


def test_an_entry_point_that_leads_nowhere_is_told(installed: Path) -> None:
    with pytest.raises(NoProvider, match="'gone' cannot be imported: ModuleNotFoundError"):
        provider("gone")
    with pytest.raises(NoProvider, match="'empty' is a function"):
        provider("empty")

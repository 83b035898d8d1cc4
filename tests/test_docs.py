"""The documents say what the code does: generated pages are current, and every configuration in them loads."""

from __future__ import annotations

import os
import re
from pathlib import Path

import orjson
import pytest

from gateway.cli import reference
from gateway.cli.meanings import MEANINGS, OWN
from gateway.cli.parameters import page
from gateway.config.loader import load
from gateway.config.plugins import BUILT_IN, Registry
from gateway.config.schema import schema
from gateway.hub import PARAMS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```ya?ml\n(.*?)^```", re.M | re.S)
REFERENCE = re.compile(r"env: *([A-Z][A-Z0-9_]*)")
BLOCKS = [
    pytest.param(path, text, id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, text in enumerate(FENCE.findall(path.read_text()), 1)
]


def test_the_page_of_parameters_is_current() -> None:
    assert (ROOT / "docs" / "parameters.md").read_text() == page(), "run `make docs`"


def test_the_page_of_parameters_has_a_line_for_each_at_each_provider() -> None:
    sections = page().split("\n## ")[1:]
    assert len(sections) == 8
    for section in sections:
        assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) == PARAMS


def test_the_page_of_options_is_current() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == reference.page(), "run `make docs`"


def test_the_page_of_options_has_a_section_for_each_map_and_a_row_for_each_option() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", reference.page(), re.M)
    named = [option.split(".")[1] for option in reference.options()]
    assert [name for name in rows if name not in BUILT_IN] == named
    assert {"listen", "base_url", "rpm", "first_byte", "hash"} <= set(rows)


def test_every_option_is_explained_in_a_line() -> None:
    known = set(reference.options())
    assert known - set(MEANINGS) == set(), "say what they are for in gateway/cli/meanings.py, then run `make docs`"
    assert set(MEANINGS) - known == set(), "take them out of gateway/cli/meanings.py, then run `make docs`"
    own = {name: set(Registry()[name].options) for name in BUILT_IN}
    assert {name: set(OWN.get(name, {})) for name in BUILT_IN} == own, "gateway/cli/meanings.py, then `make docs`"


def test_the_schema_that_editors_use_is_current() -> None:
    path = ROOT / "gateway.schema.json"
    if not path.exists():
        pytest.skip("gateway.schema.json is not kept in the repository")
    assert orjson.loads(path.read_bytes()) == orjson.loads(orjson.dumps(schema(Registry()))), "run `make docs`"


def complete(text: str) -> str:
    """A block as a whole file: what it does not say about the version is added."""
    return text if re.search(r"^version:", text, re.M) else f"version: 1\n{text}"


@pytest.mark.parametrize(("path", "text"), BLOCKS)
def test_every_configuration_in_the_documents_loads(path: Path, text: str) -> None:
    environ = {**os.environ, **dict.fromkeys(REFERENCE.findall(text), "some-value-from-the-environment")}
    environ |= {name: "redis://127.0.0.1" for name in environ if name.endswith("REDIS_URL")}
    loaded = load(f"{path.name}", environ, Registry(), text=complete(text))
    assert [str(finding) for finding in loaded.findings if finding.level == "error"] == []


def test_the_shipped_configuration_loads_without_an_error() -> None:
    loaded = load(str(ROOT / "gateway.yaml"), os.environ, Registry())
    assert loaded.config is not None
    assert {entry.type for entry in loaded.config.providers.values()} == {
        *("openai", "azure", "together", "fireworks", "xai", "anthropic", "google", "bedrock")
    }


def test_every_local_link_of_the_documents_leads_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"

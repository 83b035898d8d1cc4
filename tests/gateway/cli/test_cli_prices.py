"""The script that makes the price table: small, in one form, and only what chats cost."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.cli import prices

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@dataclass
class Model:
    """A model as the package describes it."""

    id: str
    match: Any
    costs: Any

    def get_prices(self, now: datetime) -> Any:
        assert now == NOW
        return self.costs


def equals(*texts: str) -> SimpleNamespace:
    return SimpleNamespace(or_=[SimpleNamespace(equals=text) for text in texts])


def begins(text: str) -> SimpleNamespace:
    return SimpleNamespace(starts_with=text)


def holds(text: str) -> SimpleNamespace:
    return SimpleNamespace(contains=text)


def costs(**prices: Any) -> SimpleNamespace:
    return SimpleNamespace(**{f"{name}_mtok": price for name, price in prices.items()})


def tiered(base: str, *tiers: tuple[int, str]) -> SimpleNamespace:
    rows = [SimpleNamespace(start=start, price=Decimal(price)) for start, price in tiers]
    return SimpleNamespace(base=Decimal(base), tiers=rows)


PLAIN = costs(input=Decimal("2.5"), output=Decimal(10), cache_read=Decimal("1.25"))


def models(*found: Model) -> Any:
    """The table of a type that has these models."""
    providers = {name: SimpleNamespace(models=[]) for names in prices.SOURCES.values() for name in names}
    providers["openai"] = SimpleNamespace(models=list(found))
    return prices.table(providers, NOW)["openai"]["models"]


def test_a_model_has_a_row_for_each_of_its_names() -> None:
    row = {"input": 2.5, "output": 10.0, "cached": 1.25}
    assert models(Model("x", equals("GPT-4o", "chatgpt"), PLAIN)) == {"gpt-4o": row, "chatgpt": row}
    assert models(Model("x", begins("gpt-4o-2024-"), PLAIN)) == {"gpt-4o": row}
    assert models(Model("regional.meta.llama-v1:0", holds("llama"), PLAIN)) == {"meta.llama": row}


def test_a_revision_that_costs_the_same_needs_no_row() -> None:
    dear = costs(input=Decimal(5), output=Decimal(15))
    found = models(
        Model("a", equals("gpt-4o", "gpt-4o-2024-08-06"), PLAIN), Model("b", equals("gpt-4o-2024-05-13"), dear)
    )
    assert set(found) == {"gpt-4o", "gpt-4o-2024-05-13"}


@pytest.mark.parametrize("name", ["text-embedding-3", "gpt-4o-audio-preview", "tts-1", "gpt-image-1", "mai:free"])
def test_what_no_chat_goes_through_is_left_out(name: str) -> None:
    assert models(Model("x", equals(name), PLAIN)) == {}


def test_what_is_not_charged_by_tokens_both_ways_is_left_out() -> None:
    assert models(Model("x", equals("x"), costs(input=Decimal(1)))) == {}
    assert models(Model("x", equals("x"), costs(input=Decimal(0), output=Decimal(0)))) == {}


def test_long_requests_have_prices_of_their_own() -> None:
    long = costs(input=tiered("1", (200, "2"), (500, "3")), output=tiered("5", (200, "6")), cache_write=Decimal(1))
    assert models(Model("x", equals("x"), long))["x"] == {
        "input": 1.0,
        "output": 5.0,
        "cache_written": 1.0,
        "above": [
            [200, {"input": 2.0, "output": 6.0, "cache_written": 1.0}],
            [500, {"input": 3.0, "output": 6.0, "cache_written": 1.0}],
        ],
    }


def test_the_file_is_json_with_a_line_per_model() -> None:
    found = {
        "openai": {"also": [], "models": {"b": {"input": 1.0}, "a": {"input": 2.0}}},
        "xai": {"also": ["openai"], "models": {}},
    }
    text = prices.written(found, "somewhere 1.0", NOW)
    assert json.loads(text) == {
        "source": "somewhere 1.0",
        "date": "2026-11-23",
        "currency": "USD",
        "per": "a million tokens",
        "providers": found,
    }
    assert '        "a": {"input": 2.0},\n        "b": {"input": 1.0}\n' in text


def test_without_its_extra_the_script_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert prices.main() == 2
    assert "pip install 'sluiceway[prices]'" in capsys.readouterr().err


def test_the_script_writes_the_table_of_today(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("genai_prices")
    assert prices.main() == 0
    table = json.loads(capsys.readouterr().out)
    assert set(table["providers"]) == set(prices.SOURCES)
    assert table["providers"]["openai"]["models"]["gpt-4o-mini"]["input"] > 0

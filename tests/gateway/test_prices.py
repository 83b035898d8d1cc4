"""gateway.prices and the package's table: each token is charged once, and an id finds its model and no other."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import prices as script
from gateway.config.pricing import _tariff, has_table, listed, tariff, tariff_of
from gateway.config.types import Deployment, Price
from gateway.contract import Usage
from gateway.prices import Tariff, dearest, find
from gateway.usage import read_usage

ROOT = Path(__file__).resolve().parents[2]
LONG = Tariff(6, 22, 0.6, 7.5)
PLAIN = Tariff(3, 15, 0.3, 3.75, above=200_000, beyond=LONG)
M = 1_000_000


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(100_000, M), 0.3 + 15),
        (Usage(100_000, 0, cached=40_000), 0.18 + 0.012),
        (Usage(100_000, 0, cached=40_000, cache_written=10_000), 0.15 + 0.012 + 0.0375),
        (Usage(0, M, reasoning=900_000), 15),
        (Usage(200_000, 0), 0.6),
        (Usage(200_001, M), 200_001 * 6 / M + 22),
        (Usage(M, 0, cached=M), 0.6),
        (Usage(0, 0), 0),
        (Usage(completion=M, source="partial"), 0.03 + 15),
        (Usage(prompt=100_000), 0.3),
    ],
)
def test_every_token_is_charged_once_and_by_its_kind(usage: Usage, cost: float) -> None:
    assert PLAIN.cost(usage, prompt=10_000) == pytest.approx(cost)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_usage_however_odd_gives_money_back(prompt: int, completion: int, cached: int, written: int) -> None:
    assert PLAIN.cost(Usage(prompt, completion, cached, written)) >= 0


def test_xais_reasoning_beside_the_completion_is_charged_as_completion() -> None:
    usage = read_usage(
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 115,
            "completion_tokens_details": {"reasoning_tokens": 100},
        }
    )
    assert usage is not None
    grok = listed("xai", "grok-4")
    assert grok is not None
    assert grok.cost(usage) == pytest.approx((10 * grok.input + 105 * grok.output) / M)


def test_an_estimate_is_what_nothing_cached_costs() -> None:
    assert PLAIN.estimate(100_000, 1_000) == PLAIN.cost(Usage(100_000, 1_000))
    assert PLAIN.estimate(300_000, 0) == LONG.cost(Usage(300_000, 0))


def test_the_dearest_of_several_is_found() -> None:
    assert dearest([Tariff(1, 2, 1, 1), PLAIN, Tariff(2, 3, 1, 1)]) is PLAIN
    assert dearest([]) is None


TABLE = {
    name: name
    for name in (
        *(
            "gpt-4o",
            "gpt-4o-2024-05-13",
            "gpt-4o-mini",
            "gpt-4",
            "claude-opus-4",
            "claude-sonnet-4-5",
            "gemini-2.5-pro",
        ),
        *("anthropic.claude-sonnet-4-5-20250929", "global.anthropic.claude-sonnet-4-5-20250929"),
        *("accounts/fireworks/models/glm-5p1", "ft:gpt-4o-mini", "meta-llama/llama-3.3-70b-instruct-turbo"),
    )
}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "gpt-4o"),
        ("GPT-4o ", "gpt-4o"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4o-audio-preview", None),
        ("gpt-4o-mini-eu", None),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4.1", None),
        ("gpt-4-32k", None),
        ("claude-opus-4-20250514", "claude-opus-4"),
        ("claude-opus-4-5", None),
        ("claude-opus-4-5-20251101", None),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("publishers/google/models/gemini-2.5-pro-preview-06-05", "gemini-2.5-pro"),
        ("gemini-2.5-pro-preview-09-2025", "gemini-2.5-pro"),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-sonnet-4-5-20250929"),
        ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-sonnet-4-5-20250929"),
        ("us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-sonnet-4-5-20250929"),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", "global.anthropic.claude-sonnet-4-5-20250929"),
        (
            "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "anthropic.claude-sonnet-4-5-20250929",
        ),
        ("accounts/fireworks/models/glm-5p1", "accounts/fireworks/models/glm-5p1"),
        ("accounts/acme/models/glm-5p1", None),
        ("ft:gpt-4o-mini-2024-07-18:acme::id", "ft:gpt-4o-mini"),
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", "meta-llama/llama-3.3-70b-instruct-turbo"),
        ("", None),
        ("*", None),
    ],
)
def test_an_id_finds_its_model_and_no_other(model: str, name: str | None) -> None:
    assert find(TABLE, model) == name


@given(st.text(max_size=60))
def test_whatever_stands_for_a_model_is_found_or_not(model: str) -> None:
    assert find(TABLE, model) in {None, *TABLE}


def shipped() -> Iterator[tuple[str, str]]:
    content = yaml.safe_load((ROOT / "gateway.yaml").read_text())
    for deployment in content["deployments"].values():
        kind = content["providers"][deployment["provider"]]["type"]
        yield kind, deployment.get("base_model") or deployment["model"]


# The demo's own models, and one that its provider does not sell any more.
UNPRICED = {"demo-slow", "demo-fail", "*", "accounts/fireworks/models/deepseek-v3p1"}


def test_the_models_of_the_shipped_configuration_have_prices() -> None:
    assert {model for kind, model in shipped() if listed(kind, model) is None} == UNPRICED


def test_a_price_in_the_file_goes_over_the_table() -> None:
    own = Deployment(provider="o", model="gpt-4o", price=Price(input=1, output=2, currency="EUR"))
    assert tariff_of("openai", own) == Tariff(1, 2, 1, 1, "EUR")
    assert tariff(Price(input=4, output=2, cached=0.0, cache_written=5)) == Tariff(4, 2, 0, 5)


def test_a_private_name_is_priced_by_its_base_model_and_a_variation_by_its_own_or_its_deployments() -> None:
    private = Deployment(provider="a", model="prod", base_model="gpt-4o-mini")
    mini, large = listed("openai", "gpt-4o-mini"), listed("openai", "gpt-4o")
    assert mini != large
    assert tariff_of("azure", private) == mini
    assert tariff_of("azure", private, "gpt-4o") == large
    assert tariff_of("azure", private, "acme/lora") == mini
    assert tariff_of("azure", Deployment(provider="a", model="prod")) is None


def test_a_type_that_is_not_ours_has_no_table() -> None:
    assert not has_table("acme")
    assert listed("acme", "gpt-4o") is None


def rows() -> Iterator[tuple[str, str, dict[str, Any]]]:
    content = orjson.loads((ROOT / "gateway" / "prices.json").read_bytes())
    for kind, entry in content["providers"].items():
        for name, row in entry["models"].items():
            yield kind, name, row


def test_the_table_knows_models_of_all_eight_providers_and_every_price_makes_sense() -> None:
    assert {kind for kind, _, _ in rows()} == set(script.SOURCES)
    for kind, name, row in rows():
        found = listed(kind, name)
        assert found is not None
        for each in (row, *(beyond for _, beyond in row.get("above", ()))):
            assert 0 < each["input"] < 1000, name
            assert 0 < each["output"] < 2000, name
            assert each.get("cached", 0) <= each["input"], name


def test_a_name_of_endless_digits_is_unknown_and_takes_no_time() -> None:
    assert find({"gpt-4o": 1}, f"gpt-4o{'1' * 200}x") is None
    assert find({"gpt-4o": 1}, f"gpt-4o{'-2024-08-06' * 50}") is None


def test_the_table_charges_what_its_source_charges() -> None:
    """The same usages through both, for every model that both know by its whole name."""
    genai_prices = pytest.importorskip("genai_prices")
    data = pytest.importorskip("genai_prices.data")
    now = datetime.now(UTC)
    compared = 0
    ids = {each.id: each for each in data.providers}
    fresh = script.table(ids, now)
    for kind, (own, *_) in script.SOURCES.items():
        for name in fresh[kind]["models"]:
            model = ids[own].find_model(name)
            ours = find(fresh[kind]["models"], name)
            if model is None or ours is None or script._row(model.get_prices(now)) != ours:
                continue
            for prompt in (1_000, 250_000):
                theirs = model.get_prices(now).calc_price(genai_prices.Usage(input_tokens=prompt, output_tokens=500))
                cost = as_tariff(ours).cost(Usage(prompt, 500))
                assert float(theirs["total_price"]) == pytest.approx(cost), name
            compared += 1
    assert compared > 200


def as_tariff(row: dict[str, Any]) -> Tariff:
    return _tariff(row, "USD")

"""gateway.config.budgets: a budget that nobody could keep is a mistake, at its place."""

from __future__ import annotations

import pytest
from config_samples import config, messages

from gateway.config.budgets import budgets_of
from gateway.purses import Budget, Owner

HASH = "sha256:" + "0a" * 32
ACCOUNTS = 'providers: {o: {type: openai, base_url: "http://127.0.0.1:1", api_key: {env: OPENAI_API_KEY}}}\n'
DEPLOYMENTS = """\
deployments:
  gpt: {provider: o, model: gpt-4o-mini}
  odd: {provider: o, model: mine}
  own: {provider: o, model: mine, price: {input: 1, output: 2, currency: EUR}}
  named: {provider: o, model: mine, base_model: gpt-4o}
  o/*: {provider: o, model: "*"}
adapters:
  lora: {deployment: gpt, model: acme/lora}
  odder: {deployment: odd, model: acme/lora}
routings:
  good: {targets: [gpt, named]}
  bad: {targets: [good], fallback: [odd]}
"""


def told(text: str) -> list[str]:
    found = messages("version: 1\n" + ACCOUNTS + text)
    return [each.split(": ", 1)[1].removeprefix("error: ") for each in found if "budget" in each]


def key(models: str, budget: str = "5 USD/day") -> list[str]:
    return told(DEPLOYMENTS + f"keys:\n  app: {{hash: '{HASH}', models: [{models}], limits: {{budget: {budget}}}}}\n")


@pytest.mark.parametrize("models", ["gpt", "named", "gpt, lora", "good", '"o/*"', "o/gpt-4o", '"o/gpt*"'])
def test_what_has_a_price_may_have_a_budget(models: str) -> None:
    assert key(models) == []


@pytest.mark.parametrize(
    ("models", "missing"),
    [
        ("odd", [("mine", "odd")]),
        ("bad", [("mine", "odd")]),
        ("odder", [("acme/lora", "odd")]),
        ("o/nix", [("nix", "o/*")]),
        ('"od*"', [("mine", "odd"), ("acme/lora", "odd")]),
    ],
)
def test_a_key_with_a_budget_that_may_reach_what_has_no_price_is_a_mistake(
    models: str, missing: list[tuple[str, str]]
) -> None:
    assert key(models) == [
        f"keys.app.limits.budget: no price is known for '{model}': set deployments.{name}.price"
        for model, name in missing
    ]


def test_prices_and_budgets_are_in_one_currency() -> None:
    assert key("own", "5 EUR/day") == []
    assert key("own") == ["keys.app.limits.budget: is in USD, and tokens of own cost EUR: set deployments.own.price"]
    assert key("gpt", "5 EUR/month") == [
        "keys.app.limits.budget: is in EUR, and tokens of gpt cost USD: set deployments.gpt.price"
    ]


def test_a_key_for_everything_is_told_of_each_deployment_once() -> None:
    assert len(key('"*"')) == 3


def test_deployments_and_targets_with_budgets_need_prices_too() -> None:
    budget = "limits: {budget: 1 USD/day}"
    text = DEPLOYMENTS.replace("model: mine}", f"model: mine, {budget}}}").replace(
        "model: gpt-4o-mini", f"model: gpt-4o-mini, {budget}"
    )
    text = text.replace("[gpt, named]", f"[gpt, {{use: bad, {budget}}}]").replace("targets: [good]", "targets: [odd]")
    assert told(text) == [
        "deployments.odd.limits.budget: no price is known for 'mine': set deployments.odd.price",
        "deployments.odd.limits.budget: no price is known for 'acme/lora': set deployments.odd.price",
        "routings.good.targets[1].limits.budget: no price is known for 'mine': set deployments.odd.price",
    ]


def test_a_finding_stands_at_the_budget() -> None:
    text = "version: 1\n" + ACCOUNTS + DEPLOYMENTS.replace("model: mine}", "model: mine, limits: {budget: 1 USD/day}}")
    line = text.splitlines().index("  odd: {provider: o, model: mine, limits: {budget: 1 USD/day}}")
    column = text.splitlines()[line].index("1 USD/day")
    assert messages(text)[0].startswith(f"g.yaml:{line + 1}:{column + 1}: error: deployments.odd.limits.budget: ")


def test_routings_in_a_circle_are_reported_once_and_not_followed_for_ever() -> None:
    assert key("good") == []
    text = DEPLOYMENTS.replace("[gpt, named]", "[bad]").replace("fallback: [odd]", "fallback: [gpt]")
    assert told(text + f"keys:\n  app: {{hash: '{HASH}', models: [good], limits: {{budget: 1 USD/day}}}}\n") == []


def test_every_budget_has_its_owner() -> None:
    text = "deployments: {gpt: {provider: o, model: gpt-4o, limits: {budget: 2 USD/month}}}\n" + (
        "routings: {r: {targets: [{use: gpt, limits: {budget: 3 USD/day}}]}}\n"
        f"keys: {{app: {{hash: '{HASH}', limits: {{budget: 1.5 USD/day}}}}}}\n"
    )
    assert budgets_of(config("version: 1\n" + ACCOUNTS + text)) == {
        Owner("key", "app", "USD"): Budget(1.5, "USD", "day"),
        Owner("deployment", "gpt", "USD"): Budget(2, "USD", "month"),
        Owner("target", "r -> gpt", "USD"): Budget(3, "USD", "day"),
    }

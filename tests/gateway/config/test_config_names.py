"""The one name space of models."""

from __future__ import annotations

import pytest
from config_samples import BASE, messages

from gateway.config.names import covers


def told(text: str) -> list[str]:
    return [finding.partition("error: ")[2] for finding in messages(text)]


def test_a_name_is_defined_once_across_sections() -> None:
    text = BASE + "adapters: {gpt: {deployment: gpt}}\nroutings: {gpt: {targets: [gpt]}}\n"
    assert told(text)[:2] == [
        "adapters.gpt: 'gpt' is defined twice, first under deployments in g.yaml:4",
        "routings.gpt: 'gpt' is defined twice, first under deployments in g.yaml:4",
    ]


@pytest.mark.parametrize(
    ("lines", "finding"),
    [
        ('  a: {provider: openai, model: "*"}', "deployments.a.model: a name with '*' and model: \"*\" go together"),
        ("  a/*: {provider: openai, model: m}", "deployments.a/*.model: a name with '*' and model: \"*\" go together"),
        ('  a*: {provider: openai, model: "*"}', "deployments.a*: '*' stands alone, after the last '/': openai/*"),
        ('  "*/a": {provider: openai, model: "*"}', "deployments.*/a: '*' stands alone, after the last '/': openai/*"),
        ('adapters: {"a/*": {deployment: gpt}}', "adapters.a/*: only a deployment's name may hold '*'"),
        ('adapters: {a: {deployment: gpt, model: "*"}}', "adapters.a.model: one model, without '*'"),
        ("adapters: {a: {deployment: gtp}}", "adapters.a.deployment: no deployment 'gtp' (did you mean 'gpt'?)"),
        ('routings: {r: {targets: ["o/*"]}}', "routings.r.targets[0]: one model, without '*'"),
        ("routings: {r: {targets: [gpt], fallback: [openai]}}",
         "routings.r.fallback[0]: no deployment, adapter or routing 'openai'"),
        ("routings: {r: {targets: [r]}}", "routings.r: leads to itself: r -> r"),
        ("routings: {r: {targets: [{use: r}]}}", "routings.r: leads to itself: r -> r"),
        ("routings: {r: {targets: [gpt], mirror: {to: x}}}",
         "routings.r.mirror.to: no deployment, adapter or routing 'x'"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_told(lines: str, finding: str) -> None:
    assert finding in told(BASE + lines + "\n")


def test_a_wildcard_defines_what_it_covers() -> None:
    text = BASE + '  o/*: {provider: openai, model: "*"}\nroutings: {r: {targets: [o/gpt-5, gpt]}}\n'
    assert told(text) == []


def test_a_circle_is_told_once_wherever_the_walk_begins() -> None:
    rows = {"a": "b", "b": "c", "c": "a", "d": "a"}
    text = BASE + "routings:\n" + "".join(f"  {name}: {{targets: [gpt, {to}]}}\n" for name, to in rows.items())
    assert told(text) == ["routings.a: leads to itself: a -> b -> c -> a"]


def test_a_chain_of_a_thousand_routings_is_no_circle() -> None:
    rows = "".join(f"  r{number}: {{targets: [r{number + 1}]}}\n" for number in range(1000))
    assert told(BASE + "routings:\n" + rows + "  r1000: {targets: [gpt]}\n") == []


def test_a_key_may_allow_patterns() -> None:
    text = BASE + f'keys: {{k: {{hash: "sha256:{"0" * 64}", models: [%s]}}}}\n'
    for models in ('"*"', "gpt", "gp*", '"g*", gpt'):
        assert told(text.replace("%s", models)) == []
    assert "keys.k.models[1]: allows a model that nobody defines: 'x*'" in told(text.replace("%s", 'gpt, "x*"'))


def test_a_pattern_covers_any_rest() -> None:
    assert covers("gpt", "gpt")
    assert covers("o/*", "o/a/b")
    assert covers("*", "x")
    assert not covers("o/*", "p/a")
    assert not covers("gpt", "gpt-4")

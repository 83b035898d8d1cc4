"""What becomes of a LiteLLM model: the provider that it leads to, or the reason why it is left out."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gateway.cli.litellm.vendors import FOREIGN, VENDORS
from gateway.config.plugins import BUILT_IN
from tests.gateway.cli.imports import entry, env, grade, imported, one, provider


@pytest.mark.parametrize(
    ("model", "params", "expected", "own"),
    [
        ("openai/gpt-4o", {}, {"type": "openai", "api_key": env("OPENAI_API_KEY")}, "gpt-4o"),
        ("gpt-4o-mini", {"api_key": "os.environ/K"}, {"type": "openai", "api_key": env("K")}, "gpt-4o-mini"),
        ("claude-sonnet-4-5", {}, {"type": "anthropic", "api_key": env("ANTHROPIC_API_KEY")}, "claude-sonnet-4-5"),
        ("gemini/gemini-2.5-flash", {}, {"type": "google", "api_key": env("GEMINI_API_KEY")}, "gemini-2.5-flash"),
        (
            "azure/eu-prod",
            {"api_base": "https://acme.openai.azure.com/", "api_key": "os.environ/K", "api_version": "2024-10-21"},
            {
                "type": "azure",
                "base_url": "https://acme.openai.azure.com/",
                "api_key": env("K"),
                "api_version": "2024-10-21",
            },
            "eu-prod",
        ),
        (
            "azure/eu-prod",
            {"api_base": "os.environ/AZURE_BASE", "tenant_id": "t", "client_id": "c", "client_secret": "os.environ/S"},
            {
                "type": "azure",
                "base_url": env("AZURE_BASE"),
                "entra": {"tenant_id": "t", "client_id": "c", "client_secret": env("S")},
            },
            "eu-prod",
        ),
        (
            "bedrock/converse/us-west-2/anthropic.claude-3-haiku-20240307-v1:0",
            {"aws_access_key_id": "os.environ/A", "aws_secret_access_key": "os.environ/B"},
            {"type": "bedrock", "access_key_id": env("A"), "secret_access_key": env("B"), "region": "us-west-2"},
            "anthropic.claude-3-haiku-20240307-v1:0",
        ),
        (
            "bedrock/amazon.nova-pro-v1:0",
            {"aws_region_name": "os.environ/AWS_REGION_NAME"},
            {"type": "bedrock", "region": env("AWS_REGION_NAME")},
            "amazon.nova-pro-v1:0",
        ),
        (
            "vertex_ai/gemini-2.5-pro",
            {"vertex_project": "acme-prod", "vertex_location": "europe-west4", "vertex_credentials": "/etc/sa.json"},
            {"type": "google", "project": "acme-prod", "location": "europe-west4", "credentials": "/etc/sa.json"},
            "gemini-2.5-pro",
        ),
        ("together_ai/meta-llama/L", {}, {"type": "together", "api_key": env("TOGETHERAI_API_KEY")}, "meta-llama/L"),
        (
            "fireworks_ai/deepseek-v3",
            {},
            {"type": "fireworks", "api_key": env("FIREWORKS_AI_API_KEY")},
            "accounts/fireworks/models/deepseek-v3",
        ),
        ("openai/a", {"api_key": "${KEY}"}, {"type": "openai", "api_key": env("KEY")}, "a"),
        ("xai/grok-4", {}, {"type": "xai", "api_key": env("XAI_API_KEY")}, "grok-4"),
        (
            "groq/llama-3",
            {"api_key": "os.environ/G"},
            {"type": "openai", "base_url": "https://api.groq.com/openai/v1", "api_key": env("G")},
            "llama-3",
        ),
        (
            "hosted_vllm/facebook/opt",
            {"api_base": "http://127.0.0.1:8000/v1", "api_key": "none"},
            {"type": "openai", "base_url": "http://127.0.0.1:8000/v1"},
            "facebook/opt",
        ),
        ("ollama_chat/mistral", {}, {"type": "openai", "base_url": "http://localhost:11434/v1"}, "mistral"),
        (
            "somebody/model",
            {"api_base": "https://somebody.test/v1/chat/completions", "api_key": "os.environ/S"},
            {"type": "openai", "base_url": "https://somebody.test/v1", "api_key": env("S")},
            "somebody/model",
        ),
        (
            "model-x",
            {"custom_llm_provider": "deepseek"},
            {"type": "openai", "base_url": "https://api.deepseek.com/v1", "api_key": env("DEEPSEEK_API_KEY")},
            "model-x",
        ),
    ],
)
def test_a_model_leads_to_its_provider(model: str, params: Any, expected: Any, own: str) -> None:
    made = one(model, **params)
    assert provider(made) == expected
    assert made.values["deployments"]["m"]["model"] == own


@pytest.mark.parametrize("prefix", sorted(VENDORS))
def test_every_known_prefix_gives_a_file_that_is_taken(prefix: str) -> None:
    made = one(f"{prefix}/amazon.some-model-v1:0" if prefix == "bedrock" else f"{prefix}/some-model")
    assert provider(made)["type"] in BUILT_IN


def test_nothing_that_needs_an_address_goes_to_openai_without_one() -> None:
    for prefix in ("hosted_vllm", "lm_studio", "custom_openai", "litellm_proxy"):
        assert provider(one(f"{prefix}/model"))["base_url"]["env"].endswith("_API_BASE")


@pytest.mark.parametrize(
    ("model", "params", "why"),
    [
        *((f"{prefix}/some-model", {"api_base": "https://x.test"}, "dialect of its own") for prefix in sorted(FOREIGN)),
        ("openai/text-embedding-3-small", {}, "no chat"),
        ("openai/whisper-1", {}, "no chat"),
        ("vertex_ai/claude-sonnet-4", {}, "Google's own"),
        ("bedrock/agent/ABC/DEF", {}, "chat models"),
        ("nobody-knows-this", {}, "no provider that is known"),
        ("openai/gpt-*", {}, "wildcard"),
        ("azure/no such deployment", {"api_base": "https://x.test"}, "no deployment name"),
        ("openai/gpt", {"api_base": "https://user:hunter2@x.test"}, "credentials"),
        ("bedrock/amazon.nova-pro-v1:0", {"aws_region_name": "nowhere"}, "region"),
    ],
)
def test_what_cannot_be_served_is_left_out_with_a_reason(model: str, params: Any, why: str) -> None:
    made = imported({"model_list": [entry("m", model, **params), entry("good", "openai/gpt-4o")]})
    assert list(made.values["deployments"]) == ["good"]
    about = [row for row in made.rows if row.field.startswith("model_list[0]")]
    assert {row.grade for row in about} == {"unsupported"}
    assert any(why in row.note for row in about)
    assert "hunter2" not in str(made)


def test_a_mode_that_is_not_chat_is_left_out() -> None:
    source = {"model_list": [{**entry("m", "openai/x"), "model_info": {"mode": "embedding"}}]}
    made = imported({"model_list": [*source["model_list"], entry("good", "openai/gpt-4o")]})
    assert list(made.values["deployments"]) == ["good"]


def test_deployments_of_one_account_share_its_entry_and_others_get_their_own() -> None:
    models = [
        entry("a", "openai/a", api_key="os.environ/K"),
        entry("b", "openai/b", api_key="os.environ/K"),
        entry("c", "openai/c", api_key="os.environ/OTHER"),
    ]
    made = imported({"model_list": models})
    assert [each["provider"] for each in made.values["deployments"].values()] == ["openai", "openai", "openai-2"]


def test_organizations_and_headers() -> None:
    made = one(
        "openai/a", organization="org-1", extra_headers={"X-Team": "search", "X-Api-Key": "hunter2", "Host": "h"}
    )
    assert provider(made)["headers"] == {
        "openai-organization": "org-1",
        "X-Team": "search",
        "X-Api-Key": env("OPENAI_X_API_KEY"),
    }
    assert grade(made, "extra_headers.Host") == "unsupported"
    several = one("openai/a", organization=["org-1", "org-2"])
    assert len(several.values["routings"]["m"]["targets"]) == 2


def test_named_credentials_are_filled_in() -> None:
    values = {"api_key": "os.environ/AZ", "api_base": "https://a.test", "api_version": "2024-10-21"}
    source = {
        "model_list": [entry("m", "azure/x", litellm_credential_name="eu")],
        "credential_list": [{"credential_name": "eu", "credential_values": values, "credential_info": {}}],
    }
    made = imported(source)
    assert provider(made) == {
        "type": "azure",
        "base_url": "https://a.test",
        "api_key": env("AZ"),
        "api_version": "2024-10-21",
    }
    assert grade(made, "litellm_credential_name") == "exact"


def test_wildcards() -> None:
    models = [
        entry("anthropic/*", "anthropic/*"),
        entry("*", "openai/*", api_key="os.environ/K"),
        entry("claude-*", "anthropic/claude-*"),
        entry("anthropic/*", "anthropic/*", api_key="os.environ/SECOND"),
    ]
    made = imported({"model_list": models})
    assert {name: each["model"] for name, each in made.values["deployments"].items()} == {"anthropic/*": "*", "*": "*"}
    assert grade(made, "model_list[2].model_name") == "unsupported"
    assert grade(made, "model_list[3].model_name") == "unsupported"


def test_the_same_secret_gets_one_name_and_none_that_the_source_uses_otherwise() -> None:
    models = [
        entry("a", "openai/a", api_key="sk-first"),
        entry("b", "openai/b", api_key="sk-first"),
        entry("c", "openai/c", api_key="sk-other"),
        entry("d", "openai/d"),
        entry("e", "groq/e", api_key="os.environ/OPENAI_API_KEY_2"),
    ]
    made = imported({"model_list": models})
    keys = [each["api_key"]["env"] for each in made.values["providers"].values()]
    assert len(keys) == len(set(keys))
    assert provider(made, "a") == provider(made, "b")
    assert provider(made, "d")["api_key"] == env("OPENAI_API_KEY")
    assert provider(made, "e")["api_key"] == env("OPENAI_API_KEY_2")
    assert not re.search(r"sk-(first|other)", str(made))

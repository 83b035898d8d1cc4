from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gateway.contract import Credential
from gateway.fields import missing
from gateway.hub import PARAMS, Json
from gateway.sigv4 import sign
from plugins.bedrock import PROVIDER
from tests.plugins.bedrock.support import BASE, CLAUDE, NOVA, built, rows, target

KEYS = Credential("aws", access_key="AKID", secret_key="secret", session_token="token")
NOON = 1_795_370_400.0


@pytest.mark.parametrize("model", [CLAUDE, NOVA, "unknown.model", "us.deepseek.r1-v1:0", "openai.gpt-5-2"])
def test_the_table_is_total(model: str) -> None:
    assert missing(PROVIDER.table(target(model)), PARAMS) == set()


def test_a_row_tells_a_model_familys_own_decision() -> None:
    assert PROVIDER.table(target(CLAUDE))["reasoning_effort"].decision == "convert"
    assert PROVIDER.table(target("meta.llama3-1-8b-instruct-v1:0"))["reasoning_effort"].decision == "drop"
    assert PROVIDER.table(target(CLAUDE))["response_format"].decision == "convert"
    assert PROVIDER.table(target(NOVA))["response_format"].decision == "emulate"
    assert PROVIDER.table(target(NOVA))["n"].decision == "reject"
    assert PROVIDER.table(target(NOVA, emulate=frozenset(("n",))))["n"].decision == "emulate"


def test_aws_credentials_sign_the_request_for_its_region() -> None:
    request = built(target(options={"region": "eu-west-1"}))
    headers = PROVIDER.authorize(request, KEYS, NOON)
    expected = sign("POST", request.url, request.headers, request.body, KEYS, "eu-west-1", "bedrock", NOON)
    assert headers == expected
    assert "/eu-west-1/bedrock/aws4_request" in headers["authorization"]
    assert headers["x-amz-security-token"] == "token"


@pytest.mark.parametrize("kind", ["key", "bearer"])
def test_a_key_is_a_bearer_token_and_no_amz_header_goes_out(kind: Any) -> None:
    assert PROVIDER.authorize(built(target()), Credential(kind, "K"), NOON) == {"authorization": "Bearer K"}


def test_no_credential_adds_nothing() -> None:
    assert PROVIDER.authorize(built(target()), Credential(), NOON) == {}


def test_an_entry_with_a_key_needs_no_aws_credentials() -> None:
    assert PROVIDER.credential({"api_key": True}) == "key"
    assert PROVIDER.credential({"region": "eu-west-1"}) == "aws"


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "us-gov-west-1", "ap-southeast-2"])
def test_regions_are_regions(region: str) -> None:
    assert PROVIDER.check({"region": region}, CLAUDE) == []


@pytest.mark.parametrize("region", ["us-east-1.evil.test/", "us-east-1\n", "useast1", "", 5, "us-east-1a"])
def test_what_is_no_region_is_a_problem(region: Any) -> None:
    assert [problem.option for problem in PROVIDER.check({"region": region}, CLAUDE)] == ["region"]


@pytest.mark.parametrize("model", ["*", "", CLAUDE, "my-imported-model"])
def test_models_are_models(model: str) -> None:
    assert PROVIDER.check({}, model) == []


@pytest.mark.parametrize("model", ["a/b", "..", "m?x", "ｅvil", "a" * 3000])
def test_what_is_no_model_is_a_problem(model: str) -> None:
    assert [problem.option for problem in PROVIDER.check({}, model)] == ["model"]


@pytest.mark.parametrize(
    ("options", "lacking"),
    [({"access_key_id": True}, "secret_access_key"), ({"secret_access_key": True}, "access_key_id")],
)
def test_half_a_key_is_a_problem(options: Json, lacking: str) -> None:
    assert [problem.option for problem in PROVIDER.check(options, "")] == [lacking]


def test_the_default_address_is_the_regions() -> None:
    assert PROVIDER.base_url.format(region="us-east-1") == BASE


def test_every_ability_in_the_data_is_explained_at_its_head() -> None:
    head = (Path(__file__).resolve().parents[3] / PROVIDER.models).read_text().partition("- match")[0]
    for name in {name for row in rows() for name in row if name != "match"}:
        assert re.search(rf"^# .*\b{name}\b.* [a-z]", head, re.M), name

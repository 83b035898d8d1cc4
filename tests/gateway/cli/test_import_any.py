"""Whatever the LiteLLM configuration: the file is taken, no field is lost, and no secret is written down."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.cli.litellm.convert import convert
from gateway.cli.litellm.vendors import VENDORS
from gateway.cli.litellm.verify import errors
from gateway.cli.yamltext import document

NAMES = st.text("abcdefgh_-/.:*@ é0", min_size=1, max_size=12)
SECRET = "hunter2-very-secret"
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**9), st.floats(0, 1e6), NAMES, st.just("os.environ/SOME_NAME")
)
ANY = st.one_of(PLAIN, st.lists(PLAIN, max_size=2), st.dictionaries(NAMES, PLAIN, max_size=2))
PARAM = st.sampled_from(
    [
        *("rpm", "tpm", "weight", "order", "timeout", "stream_timeout", "max_retries", "drop_params", "tags"),
        *("api_base", "api_version", "organization", "extra_headers", "aws_region_name", "vertex_project"),
        *("temperature", "max_tokens", "extra_body", "base_model", "cooldown_time", "max_budget", "budget_duration"),
        *("input_cost_per_token", "output_cost_per_token", "vertex_credentials", "brand_new", "custom_llm_provider"),
    ]
)
MODEL = st.builds(
    lambda prefix, model: f"{prefix}{model}",
    st.sampled_from(["", "nobody/", *(f"{name}/" for name in sorted(VENDORS))]),
    st.sampled_from(["gpt-4o", "*", "claude-3", "amazon.nova-pro-v1:0", "a b", "", "x/y"]),
)
ENTRY = st.builds(
    lambda name, model, params, info: {
        "model_name": name,
        "litellm_params": {**params, "model": model, "api_key": SECRET},
        "model_info": info,
    },
    st.one_of(st.sampled_from(["a", "b", "c"]), NAMES),
    MODEL,
    st.dictionaries(PARAM, ANY, max_size=5),
    st.dictionaries(st.sampled_from(["id", "mode", "base_model", "max_tokens", "news"]), ANY, max_size=2),
)
FALLBACKS = st.lists(st.dictionaries(NAMES | st.sampled_from("abc"), st.lists(st.sampled_from("abcd"))), max_size=3)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "fallbacks": FALLBACKS | ANY,
        "default_fallbacks": st.lists(st.sampled_from("abc")) | ANY,
        "model_group_alias": st.dictionaries(NAMES, st.sampled_from("abc")) | ANY,
        "num_retries": ANY,
        "timeout": ANY,
        "allowed_fails": ANY,
        "cooldown_time": ANY,
        "routing_strategy": ANY,
        "default_litellm_params": ANY,
        "redis_password": st.just(SECRET),
        "brand_new": ANY,
    },
)
SOURCE = st.fixed_dictionaries(
    {"model_list": st.lists(ENTRY, max_size=4)},
    optional={
        "router_settings": SETTINGS | ANY,
        "litellm_settings": SETTINGS | ANY,
        "general_settings": st.fixed_dictionaries({"master_key": st.just(SECRET)}, optional={"brand_new": ANY}),
        "brand_new": ANY,
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(SOURCE)
def test_whatever_the_source_the_file_is_taken_no_field_is_lost_and_no_secret_told(source: dict[str, Any]) -> None:
    made = convert(source, {})
    assert [str(each) for each in errors(made.values)] == []
    assert SECRET not in document(made.values)
    assert SECRET not in str(made.rows)
    told = {row.field for row in made.rows}
    for section, fields in source.items():
        if section.endswith("_settings") and isinstance(fields, dict):
            assert {f"{section}.{name}" for name in fields} <= told
        elif section != "model_list":
            assert section in told
    for index, each in enumerate(source["model_list"]):
        for part in ("litellm_params", "model_info"):
            for name in each[part]:
                where = f"model_list[{index}].{part}.{name}"
                assert any(field == where or field.startswith(f"{where}.") for field in told), where

"""Reasons for settings of LiteLLM that have no equivalent; one that begins with `manual: ` leaves something to do."""

from __future__ import annotations

from collections.abc import Mapping

_DATABASE = "no database"
_KEYS = "manual: keys that were made at run time are in LiteLLM's database; make new ones with `sluiceway keys new`"
_ALERTS = "no alerts of its own: let Prometheus watch /metrics"
_CACHE = "answers are not cached"
_USAGE = "spend is not kept in a database; the access log tells tokens and cost"
_DEBUG = "no such switch: `sluiceway explain` shows what a request becomes"
_HEALTH = "upstreams are judged by the traffic: see docs/routing.md"
_PROBE = "no guess from the model's window; `when: {max_input: N}` on a target keeps long requests away"
_WINDOW = "manual: give the small model's target `when: {max_input: N}` and name the large one in `fallback`"
_CONTENT = "a refusal for its content is told to the client, not tried elsewhere"
_POLICY = "manual: `retry.on` says which failures are tried again"
_FAILS = "manual: `retry.breaker` counts failures of any kind"
_TLS = "upstream TLS is always verified; `ca_file` of a provider entry adds an authority"

LIBRARY: Mapping[str, str] = {
    **dict.fromkeys(("cache", "cache_params", "enable_caching_on_provider_specific_optional_params"), _CACHE),
    **dict.fromkeys(("set_verbose", "enable_preview_features", "log_raw_request_response"), _DEBUG),
    "context_window_fallbacks": _WINDOW,
    "content_policy_fallbacks": _CONTENT,
    **dict.fromkeys(("max_budget", "budget_duration"), "manual: budgets stand under `keys.*.limits`"),
    **dict.fromkeys(("ssl_verify", "ssl_certificate", "ssl_security_level"), _TLS),
    "modify_params": "what is changed is decided per parameter: docs/parameters.md",
    "telemetry": "exact: nothing is sent home",
    "disable_end_user_cost_tracking": _USAGE,
    **dict.fromkeys(("default_internal_user_params", "upperbound_key_generate_params", "default_team_settings"), _KEYS),
}
ROUTER: Mapping[str, str] = {
    "context_window_fallbacks": _WINDOW,
    "content_policy_fallbacks": _CONTENT,
    "retry_policy": _POLICY,
    "model_group_retry_policy": _POLICY,
    "allowed_fails_policy": _FAILS,
    **dict.fromkeys(("enable_pre_call_checks", "enable_pre_call_check"), _PROBE),
    "enable_tag_filtering": "no routing by tags: name a routing for each",
    "tag_filtering_match_any": "no routing by tags: name a routing for each",
    "optional_pre_call_checks": "manual: `sticky: prefix` keeps requests where their prompt is cached",
    "provider_budget_config": "manual: budgets stand under `limits` of keys and deployments",
    "max_fallbacks": "manual: `retry.attempts` bounds all attempts of a request",
    **dict.fromkeys(("cache_responses", "cache_kwargs", "caching_groups"), _CACHE),
    **dict.fromkeys(("set_verbose", "debug_level"), _DEBUG),
    **dict.fromkeys(("alerting_config",), _ALERTS),
    "routing_strategy_args": "the strategies have no arguments",
    "redis_db": "manual: part of the address of Redis, under `state`",
}
GENERAL: Mapping[str, str] = {
    "database_url": _KEYS,
    **dict.fromkeys(
        ("database_connection_pool_limit", "database_connection_timeout", "allow_requests_on_db_unavailable"), _DATABASE
    ),
    **dict.fromkeys(("disable_prisma_schema_update", "proxy_batch_write_at", "database_type"), _DATABASE),
    "store_model_in_db": "manual: models that are kept in LiteLLM's database are not in this file",
    **dict.fromkeys(("disable_spend_logs", "disable_spend_updates", "store_prompts_in_spend_logs"), _USAGE),
    **dict.fromkeys(
        ("alerting", "alerting_threshold", "alert_types", "alert_to_webhook_url", "alerting_args"), _ALERTS
    ),
    **dict.fromkeys(("background_health_checks", "health_check_interval", "health_check_details"), _HEALTH),
    "global_max_parallel_requests": "manual: `keys.*.limits.parallel` bounds a client, `server.max_connections` all",
    "max_response_size_mb": "manual: `max_response` of a deployment",
    "allowed_ips": "manual: put it into the firewall",
    "custom_auth": "manual: clients are known by the keys under `keys`",
    **dict.fromkeys(("enable_jwt_auth", "litellm_jwtauth", "enable_oauth2_auth"), "clients are known by keys"),
    **dict.fromkeys(("forward_client_headers_to_llm_api", "forward_openai_org_id"), "a client's headers stay here"),
    **dict.fromkeys(("key_management_system", "key_management_settings"), "manual: {env:}, {file:} or {credential:}"),
    **dict.fromkeys(("pass_through_endpoints", "completion_model", "infer_model_from_keys"), "only models by name"),
    **dict.fromkeys(("ui_access_mode", "custom_sso", "ui_username", "ui_password"), "no user interface to log in to"),
}
SECTIONS: Mapping[str, str] = {
    "include": "manual: import those files too, and join what comes of them",
    "guardrails": "requests and answers are not moderated",
    **dict.fromkeys(("mcp_servers", "mcp_tools"), "only chat is served"),
    **dict.fromkeys(("vector_store_registry", "search_tools", "files_settings", "finetune_settings"), "only chat"),
    "callback_settings": "no callbacks: the access log and /metrics tell of every request",
    "assistant_settings": "only chat is served",
    "prompts": "no prompts are kept here",
}

"""Provider entries: what their types allow."""

from __future__ import annotations

import pytest
from config_samples import ENVIRON, PROVIDERS, config, messages, record

from gateway.config.environment import from_environment
from gateway.config.loader import load
from gateway.config.plugins import Registry
from gateway.config.urls import is_local, is_loopback, url_problem


def told(entry: str, model: str = "m") -> list[str]:
    text = f"providers:\n  p: {entry}\ndeployments:\n  d: {{provider: p, model: {model}}}\n"
    return [finding.partition(":")[2] for finding in messages(text)]


@pytest.mark.parametrize(
    ("entry", "finding"),
    [
        ("{type: opena}", "2:13: error: providers.p.type: no provider type 'opena' (did you mean 'openai'?)"),
        ("{}", "2:6: error: providers.p.type: is missing"),
        ("{type: azure, resorce: r}",
         "2:20: error: providers.p.resorce: unknown option 'resorce' of type azure (did you mean 'resource'?)"),
        ("{type: openai, region: r}", "2:21: error: providers.p.region: unknown option 'region' of type openai"),
        ("{type: azure}",
         "2:6: error: providers.p.resource: is missing: "
         "https://{resource}.openai.azure.com needs it, unless base_url is set"),
        ("{type: bedrock, region: a.b}",
         "2:30: error: providers.p.region: becomes part of a host name: only letters, digits and hyphens"),
        ("{type: bedrock, region: 7}",
         "2:30: error: providers.p.region: becomes part of a host name: only letters, digits and hyphens"),
        ("{type: nowhere}", "2:6: error: providers.p.base_url: is missing, and type nowhere has no default"),
        ("{type: azure, resource: r, api_version: a&b}", "2:46: error: providers.p.api_version: is a date"),
        ("{type: azure, resource: r, api_version: 7}",
         "2:6: error: providers.p: the options cannot be checked: TypeError"),
        ("{type: openai, base_url: ftp://h}", "2:31: error: providers.p.base_url: must begin with https:// or http://"),
        ("{type: openai, base_url: 'http://h.example'}",
         "2:31: warning: providers.p.base_url: plain http to a host that is not loopback: "
         "key and prompts travel in clear text"),
        ("{type: openai, headers: {Authorization: x}}",
         "2:46: error: providers.p.headers.Authorization: this header is the gateway's own"),
        ("{type: openai, headers: {a b: x}}", "2:36: error: providers.p.headers.a b: not a header name"),
        ("{type: openai, headers: {a: ' x'}}",
         "2:34: error: providers.p.headers.a: not a header value: printable ASCII only"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_entry_is_told(entry: str, finding: str) -> None:
    assert finding in told(entry)


def test_a_models_mistake_stands_at_the_deployment_and_the_entrys_own_is_not_repeated() -> None:
    text = (
        "providers:\n  p: {type: azure, resource: r, api_version: '&'}\n"
        "deployments:\n  d: {provider: p, model: ../x}\nadapters:\n  a: {deployment: d, model: ../y}\n"
    )
    assert messages(text) == [
        "g.yaml:2:46: error: providers.p.api_version: is a date",
        "g.yaml:4:27: error: deployments.d.model: is no path",
        "g.yaml:6:29: error: adapters.a.model: is no path",
    ]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        *((url, "") for url in ("https://api.openai.com/v1", "http://[::1]:8000/v1", "https://h/a-b/%20/~x", "http://h:1")),
        *((url, "") for url in ("http+unix://%2Frun%2Fx.sock/v1", "http+unix://%2Fx")),
        *((url, "must name a socket") for url in ("http+unix://run%2Fx.sock/v1", "http+unix:///run/x", "http+unix://%2Fx:1")),
        *((url, "must be written http+unix://%2F") for url in ("unix:/run/x.sock", "unix:///run/x.sock:/v1")),
        ("http+unix://%2Fx/../y", "has no valid path"),
        *((url, "must begin") for url in ("file:///etc/passwd", "//h", "h.example/v1", "", "javascript:x")),
        *((url, "not a URL") for url in (" https://h", "https://h/\n", "https://h\t", "https://é.h", "https://a b")),
        *((url, "must not hold") for url in ("http://u:p@h/", "https://@h", "https://u@h")),
        *((url, "must not have") for url in ("https://h/?a=b", "https://h/#a", "https://h?", "https://r#.example")),
        *((url, "has no valid host") for url in ("https://", "https:///v1", "https://-a", "https://a\\b")),
        *((url, "has no valid host") for url in ("https://{resource}.example", "https://a..b")),
        *((url, "has no valid path") for url in ("https://h/../x", "https://h/./x", "https://h/[", "https://h/{x}")),
        *((url, "not a URL") for url in ("https://h:x", "https://h:99999", "https://[::1")),
    ],
)  # fmt: skip
def test_what_a_base_url_may_be(url: str, problem: str) -> None:
    found = url_problem(url)
    assert bool(found) == bool(problem)
    assert found.startswith(problem)


def with_proxy(proxy: str, base_url: str = "https://h.example/v1") -> list[str]:
    entry = f"{{type: openai, base_url: '{base_url}', proxy: {proxy}}}"
    return messages(
        f"version: 1\nproviders: {{o: {entry}}}\ndeployments: {{d: {{provider: o, model: m}}}}\n",
        {**ENVIRON, "PROXY": "http://u:s3cret@p:1"},
    )


def test_a_proxy_is_checked_without_being_shown() -> None:
    assert with_proxy("{env: PROXY}") == []
    assert with_proxy("'http://proxy.corp:3128'") == []
    (told,) = with_proxy("'https://u:s3cret@p'", "http://127.0.0.1/v1")
    assert "providers.o.proxy: must begin with http://" in told
    (told,) = with_proxy("'http://u:s3cret@p:1'")
    assert "warning: providers.o.proxy: a secret in the file itself" in told
    (told,) = with_proxy("'http://p:1'", "http+unix://%2Frun%2Fx.sock/v1")
    assert "leads nowhere" in told


def test_a_socket_is_on_this_machine() -> None:
    assert is_local("http+unix://%2Frun%2Fx.sock/v1")
    assert is_local("http://[::1]:80/v1")
    assert not is_local("https://h.example/v1")
    text = "version: 1\nproviders: {o: {type: openai, base_url: 'http+unix://%2Fx/v1/', api_key: literal}}\n"
    text += "deployments: {d: {provider: o, model: m}}\n"
    assert messages(text, ENVIRON) == []
    assert config(text, ENVIRON).providers["o"].base_url == "http+unix://%2Fx/v1"


def test_loopback_is_this_machine_only() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST.", "a.localhost")))
    assert not any(map(is_loopback, ("10.0.0.1", "0.0.0.0", "::", "localhost.example", "127.0.0.1.example", "")))


def test_without_a_file_the_environment_says_what_there_is() -> None:
    text = from_environment({**ENVIRON, "AZURE_KEY": "k", "GEMINI_KEY": "g", "XAI_API_KEY": "x"}, PROVIDERS)
    made = config(text, {**ENVIRON, "GEMINI_KEY": "g"})
    assert {name: each.model for name, each in made.deployments.items()} == {"openai/*": "*", "google/*": "*"}
    assert made.providers["openai"].api_key.reveal() == ENVIRON["OPENAI_API_KEY"]
    assert str(made.server.listen) == "127.0.0.1:4000"


def test_without_a_file_and_without_a_key_there_is_nothing() -> None:
    assert from_environment({"OPENAI_API_KEY": ""}, PROVIDERS) == ""


def test_what_the_environment_gives_loads_with_the_plugins_that_come_along() -> None:
    environ = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "XAI_API_KEY": "k"}
    registry = Registry()
    result = load("<environment>", environ, registry, text=from_environment(environ, registry))
    assert result.config, result.findings
    assert set(result.config.deployments) == {"openai/*", "anthropic/*", "xai/*"}
    assert not result.findings


def test_a_plugin_is_shown_its_options_its_address_and_whether_there_is_a_key() -> None:
    seen = []

    def check(options, model):  # type: ignore[no-untyped-def]
        seen.append((dict(options), model))
        return ()

    provider = record("p", "https://h", "zone")
    spy = type(provider)(
        **{
            name: getattr(provider, name)
            for name in ("name", "read_error", "authorize", "table", "base_url", "options")
        },
        check=check,
    )
    text = (
        "providers: {p: {type: p, zone: z, api_key: {env: OPENAI_API_KEY}, base_url: 'https://o/v1/'}}\n"
        "deployments: {d: {provider: p, model: m}, 'p/*': {provider: p, model: '*'}}\n"
    )
    result = load("g.yaml", ENVIRON, {"p": spy}, text=text)
    assert result.config, result.findings
    assert [(set(options), model) for options, model in seen] == [
        ({"zone", "api_key", "base_url"}, ""),
        ({"zone", "api_key", "base_url"}, "m"),
    ]


def test_a_base_url_may_stand_in_the_environment() -> None:
    text = "version: 1\nproviders: {o: {type: openai, base_url: {env: ADDRESS}, api_key: {env: OPENAI_API_KEY}}}\n"
    text += "deployments: {d: {provider: o, model: m}}\n"
    there = {**ENVIRON, "OPENAI_API_KEY": "k", "ADDRESS": "https://h.example/v1/"}
    assert config(text, there).providers["o"].base_url == "https://h.example/v1"
    place = "g.yaml:2:41: error: providers.o.base_url: "
    assert messages(text, {**there, "ADDRESS": ""}) == [f"{place}environment variable ADDRESS is empty"]
    assert messages(text, {**there, "ADDRESS": "h.example"})[0].startswith(f"{place}must begin with https://")
    (told,) = messages(text, {**there, "ADDRESS": "https://u:s3cret@h.example"})
    assert "must not hold credentials" in told
    assert "s3cret" not in told

"""References to secrets, and that nothing shows what they stand for."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from config_samples import BASE, ENVIRON, config, loaded, loaded_file

from gateway.config.secrets import Secret, revealed

SENTINEL = "sk-sentinel-3141592653589793"


def key_of(text: str, environ: dict[str, str]) -> str:
    key = config(BASE.replace("{env: OPENAI_API_KEY}", text), environ).providers["openai"].api_key
    assert isinstance(key, Secret)
    return key.reveal()


def told(reference: str, environ: dict[str, str]) -> str:
    result = loaded(BASE.replace("{env: OPENAI_API_KEY}", reference), environ)
    assert result.config is None
    return "\n".join(map(str, result.findings))


def test_a_secret_tells_nothing_unless_asked() -> None:
    secret = Secret(SENTINEL, "env")
    assert SENTINEL not in f"{secret!r} {secret} {[secret]}" + repr({"a": secret})
    assert secret.reveal() == SENTINEL
    assert secret == Secret(SENTINEL)
    assert secret != Secret("other")
    assert secret != SENTINEL
    assert hash(secret) == hash(Secret(SENTINEL))
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)


def test_references_are_looked_up(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(SENTINEL.encode() + b"\r\n")
    environ = {"K": SENTINEL, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert key_of("{env: K}", environ) == SENTINEL
    assert key_of(f"{{file: {tmp_path}/key}}", environ) == SENTINEL
    assert key_of("{credential: key}", environ) == SENTINEL


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("{env: NO_SUCH}", "environment variable NO_SUCH is not set"),
        ("{env: EMPTY}", "environment variable EMPTY is empty"),
        ("{env: TWO_LINES}", "env TWO_LINES holds a line break"),
        ("{env: UMLAUT}", "cannot be sent in a header"),
        ("{env: sk-pasted-here}", "`env` must be followed by a name"),
        ("{env: 7}", "`env` must be followed by a name"),
        ("{credential: ../x}", "`credential` must be followed by a name"),
        ("{credential: x}", "CREDENTIALS_DIRECTORY is not set"),
        ("{file: /nope/key}", "cannot read /nope/key: No such file or directory"),
        ("{file: /}", "cannot read /: Is a directory"),
        ("{env: A, file: b}", "expected exactly one of {env: NAME}"),
        ("{}", "expected exactly one of {env: NAME}"),
        ("{vault: x}", "'vault' is no source of a secret"),
        ("${K}", "write {env: NAME}"),
        ("'${K}'", "write {env: NAME}"),
        ("''", "the value is empty"),
        ('"a\\nb"', "the value holds a line break"),
        ("12345", "or a text in quotes"),
        ("[a]", "or a text in quotes"),
    ],
)
def test_a_reference_that_stands_for_nothing_is_told(reference: str, words: str) -> None:
    environ = {"EMPTY": "", "TWO_LINES": "a\nb", "UMLAUT": "schlüssel", "K": SENTINEL}
    text = told(reference, environ)
    assert words in text or (reference.startswith("${") and "not valid YAML" in text)
    assert "pasted" not in text


@pytest.mark.parametrize("content", [b"x" * 70_000, b"\xff\xfe", b"\n", b""])
def test_a_file_that_holds_no_secret_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    assert "key" in told(f"{{file: {tmp_path}/key}}", {})


def test_a_null_key_is_no_key() -> None:
    assert config(BASE.replace("{env: OPENAI_API_KEY}", "null")).providers["openai"].api_key is None


def test_no_secret_is_in_any_repr_or_finding(tmp_path: Path) -> None:
    text = f"""\
providers:
  a: {{type: openai, api_key: {SENTINEL}, headers: {{x-key: {SENTINEL}, "bad name": {SENTINEL}}}}}
  b: {{type: bedrock, region: "{SENTINEL}.evil", access_key_id: {SENTINEL}, secret_access_key: "{SENTINEL}\\n"}}
  c: {{type: openai, apikey: {SENTINEL}, proxy: "http://u:{SENTINEL}@p", base_url: "https://u:{SENTINEL}@h"}}
  d: {{type: azure, resource: r, entra: {{client_id: c, client_secret: {SENTINEL}}}}}
  e: {{type: openai, headers: {{x-key: "{SENTINEL}\\u00e9"}}}}
keys: {{k: {{hash: {SENTINEL}}}}}
state: {{url: "redis://:{SENTINEL}@h"}}
"""
    result = loaded(text)
    assert len(result.findings) > 10
    assert SENTINEL not in "\n".join(map(str, result.findings))
    good = loaded(BASE, {"OPENAI_API_KEY": SENTINEL})
    assert SENTINEL not in repr(good)
    assert SENTINEL not in str(good.config)


def test_a_secret_on_loopback_may_stand_in_the_file() -> None:
    line = '  x: {type: openai, base_url: "%s", api_key: sk-local}\n'
    begin = "deployments: {gpt: {provider: x, model: m}}\nproviders:\n"
    assert not loaded(begin + line.replace("%s", "http://127.0.0.1:8000/v1")).findings
    (finding,) = loaded(begin + line.replace("%s", "https://llm.example/v1")).findings
    assert (finding.level, finding.where) == ("warning", "providers.x.api_key")


def test_nested_options_are_resolved_and_revealed_for_the_credential_source() -> None:
    text = (
        "deployments: {d: {provider: a, model: m}}\n"
        "providers: {a: {type: azure, resource: {env: RES}, api_key: {env: K}, "
        "entra: {tenant_id: {env: T}, client_secret: {env: K}}}}\n"
    )
    entry = config(text, {"RES": "acme", "K": SENTINEL, "T": "tenant"}).providers["a"]
    assert entry.options["resource"] == "acme"
    assert entry.base_url == "https://acme.openai.azure.com"
    assert SENTINEL not in repr(entry)
    assert entry.revealed() == {
        "resource": "acme",
        "entra": {"tenant_id": "tenant", "client_secret": SENTINEL},
        "api_key": SENTINEL,
    }
    assert revealed([1]) == [1]


def test_a_nested_secret_in_the_file_is_warned_of() -> None:
    text = (
        "deployments: {d: {provider: a, model: m}}\n"
        "providers: {a: {type: azure, resource: r, entra: {client_secret: sk-x}}}\n"
    )
    (finding,) = loaded(text).findings
    assert (finding.level, finding.where) == ("warning", "providers.a.entra")


def test_googles_credentials_are_a_path_a_text_or_the_machines_own(tmp_path: Path) -> None:
    (tmp_path / "sa.json").write_text('{\n"type": "service_account"}\n')
    begin = "deployments: {d: {provider: g, model: m}}\nproviders: {g: {type: google, project: p, credentials: %s}}\n"

    def given(text: str) -> object:
        (tmp_path / "g.yaml").write_text(begin.replace("%s", text))
        environ = {"JSON": '{"a":\n1}', "CREDENTIALS_DIRECTORY": str(tmp_path)}
        result = loaded_file(tmp_path / "g.yaml", environ)
        return result.config.providers["g"].options["credentials"] if result.config else None

    assert given("{file: sa.json}") == given("{credential: sa.json}") == str(tmp_path / "sa.json")
    assert given("{env: JSON}") == Secret('{"a":\n1}')
    assert given("true") is True
    assert given("default") == "default"
    assert isinstance(given("'{\"type\": 1}'"), Secret)
    assert given("{env: NONE}") is given("{file: none.json}") is given("{}") is None


def test_a_path_must_be_a_file_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    text = BASE.replace("type: openai,", f"type: openai, ca_file: {tmp_path}/ca.pem,")
    assert config(text).providers["openai"].ca_file == tmp_path / "ca.pem"
    for wrong in (f"{tmp_path}/none.pem", "{env: OPENAI_API_KEY}", "7", f"{{file: {tmp_path}}}"):
        result = loaded(BASE.replace("type: openai,", f"type: openai, ca_file: {wrong},"), ENVIRON)
        assert [finding.where for finding in result.findings] == ["providers.openai.ca_file"]

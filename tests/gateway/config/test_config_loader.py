"""gateway.yaml, whole: what a right file comes to, and what a wrong one is told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from config_samples import BASE, ENVIRON, config, loaded, loaded_file, messages

from gateway.config.types import Address, Breaker, Config, Retry, RouteTarget, Timeouts
from gateway.config.unsupported import UNSUPPORTED

HASH = "sha256:" + "0a" * 32

FULL = f"""\
version: 1
server: {{listen: 127.0.0.1:4100, admin: null, demo: 127.0.0.1:0, max_body: 1MiB, drain: 0s, max_connections: 2k}}
providers:
  openai: {{type: openai, api_key: {{env: OPENAI_API_KEY}}, headers: {{x-team: search}}}}
  azure-eu: {{type: azure, resource: acme-eu, api_version: 2024-10-21}}
  vllm: {{type: openai, base_url: "http://127.0.0.1:8000/v1/", api_key: literal-on-loopback}}
deployments:
  gpt: {{provider: openai, model: gpt-4o-mini, timeouts: {{idle: 5m}}, echo_model: requested, emulate: [n]}}
  gpt-eu: {{provider: azure-eu, model: prod, base_model: gpt-4o-mini, retry: {{attempts: 1, timeouts: {{idle: 7s}}}}}}
  openai/*: {{provider: openai, model: "*"}}
adapters:
  strict: {{deployment: gpt, set: {{temperature: 0}}, default: {{max_tokens: 4096}}}}
routings:
  fast: {{strategy: weighted, targets: [{{use: gpt, weight: 3}}, gpt-eu], fallback: [strict, openai/gpt-4.1]}}
  smart: {{targets: [fast], retry: {{attempts: 2}}}}
retry: {{on: [connect, timeout, 429, 5xx], timeouts: {{connect: 3s}}, breaker: {{open: 15s}}, budget: 10%}}
keys:
  team: {{hash: "{HASH}", models: [fast, openai/*], expires: 2999-01-01}}
telemetry: {{access_log: null}}
"""


def test_a_whole_file_comes_to_values() -> None:
    whole = config(FULL)
    assert whole.server.listen == Address("127.0.0.1", 4100)
    assert whole.server.admin is None
    assert (whole.server.max_body, whole.server.drain, whole.server.max_connections) == (1 << 20, 0.0, 2000)
    assert whole.routings["fast"].targets == (RouteTarget(use="gpt", weight=3.0), RouteTarget(use="gpt-eu"))
    assert whole.routings["fast"].fallback == ("strict", "openai/gpt-4.1")
    assert whole.adapters["strict"].set == {"temperature": 0}
    assert whole.keys["team"].hash == HASH
    assert whole.telemetry.access_log is None
    assert whole.providers["openai"].headers["x-team"].reveal() == "search"


def test_addresses_of_providers_are_complete() -> None:
    entries = config(FULL).providers
    assert entries["openai"].base_url == "https://api.openai.com/v1"
    assert entries["azure-eu"].base_url == "https://acme-eu.openai.azure.com"
    assert entries["vllm"].base_url == "http://127.0.0.1:8000/v1"


def test_what_a_deployment_does_not_say_the_files_retry_says() -> None:
    whole = config(FULL)
    assert whole.retry == Retry(
        on=("connect", "timeout", "429", "5xx"), budget=0.1, timeouts=Timeouts(connect=3.0), breaker=Breaker(open=15.0)
    )
    gpt, eu = whole.deployments["gpt"], whole.deployments["gpt-eu"]
    assert gpt.timeouts == gpt.retry.timeouts == Timeouts(connect=3.0, idle=300.0)
    assert gpt.breaker == gpt.retry.breaker == Breaker(open=15.0)
    assert (gpt.retry.attempts, eu.retry.attempts) == (None, 1)
    assert eu.timeouts == eu.retry.timeouts == Timeouts(connect=3.0, idle=7.0)
    assert eu.retry.on == whole.retry.on
    assert whole.routings["smart"].retry.attempts == 2
    assert whole.routings["smart"].retry.timeouts.connect == 3.0
    assert whole.routings["fast"].retry is None


def test_the_defaults_are_those_of_the_types() -> None:
    small = config(BASE)
    assert (small.server, small.retry, small.state) == (Config().server, Retry(), Config().state)
    assert small.deployments["gpt"].timeouts == Timeouts()


@pytest.mark.parametrize(
    ("addition", "finding"),
    [
        ("server: {workers: 0}", "5:19: error: server.workers: expected a whole number from 1 to 1024, not 0"),
        ("server: {drian: 1s}", "5:10: error: server.drian: unknown option 'drian' (did you mean 'drain'?)"),
        ("server: {insecure: yes}", "5:20: error: server.insecure: expected true or false, not 'yes'"),
        ("server: [1]", "5:9: error: server: expected a map of options, not a list"),
        ("server:", "5:8: error: server: expected a map of options, not nothing"),
        ("sever: {}", "5:1: error: sever: unknown option 'sever' (did you mean 'server'?)"),
        ("version: 2", "5:10: error: version: expected 1, not 2"),
        ("version: true", "5:10: error: version: expected 1, not True"),
        ("retry: {on: [connect, 5XX]}", "5:23: error: retry.on[1]: expected 429 or 5xx or auth or connect or reset or "
         "timeout (did you mean '5xx'?), not '5XX'"),
        ("retry: {on: connect}", "5:13: error: retry.on: expected a list, not 'connect'"),
        ("retry: {attempts: 2.5}", "5:19: error: retry.attempts: expected a whole number from 1 to 10, not 2.5"),
        ("routings: {r: {}}", "5:15: error: routings.r.targets: is missing"),
        ("routings: {r: {targets: []}}", "5:25: error: routings.r.targets: expected at least one entry, not a list"),
        ("routings: {r: {targets: [{weight: 1}]}}", "5:26: error: routings.r.targets[0].use: is missing"),
        ("routings: {r: {targets: [{use: gpt, weight: .nan}]}}",
         "5:45: error: routings.r.targets[0].weight: expected a number from 0 to 1000000, not nan"),
        ("adapters: {a: {deployment: gpt, model: 3.10}}",
         "5:40: error: adapters.a.model: expected text (quote it: \"3.10\"), not 3.1"),
        ("adapters: {a: {deployment: gpt, model: ''}}", "5:40: error: adapters.a.model: expected text, not ''"),
        ("adapters: {a: {deployment: gpt, model: \"a\\nb\"}}",
         "5:40: error: adapters.a.model: expected text on one line, not 'a\\nb'"),
        ("adapters: {a: {deployment: gpt, set: {top_p: .inf}}}",
         "5:46: error: adapters.a.set.top_p: expected a value that JSON has, not inf"),
        ("adapters: {a: {deployment: gpt, set: {stop: [a, {b: .nan}]}}}",
         "5:53: error: adapters.a.set.stop[1].b: expected a value that JSON has, not nan"),
        ("adapters: {a: {deployment: gpt, set: {stream: true}}}",
         "5:47: error: adapters.a.set.stream: an adapter does not choose this"),
        ("keys: {k: {hash: sk-not-a-hash}}",
         "5:18: error: keys.k.hash: expected sha256: and 64 hexadecimal digits, from `sluiceway keys new`"),
        ("keys: {k: {hash: 7}}",
         "5:18: error: keys.k.hash: expected sha256: and 64 hexadecimal digits, from `sluiceway keys new`, not 7"),
        ('keys: {" k": {hash: "%s"}}', "5:8: error: keys: a name is 1 to 256 printable characters"),
        ('keys: {k: {hash: "%s", expires: 2001-01-01}}', "5:102: warning: keys.k.expires: is over"),
        ('keys: {k: {hash: "%s", models: [nope]}}',
         "5:102: error: keys.k.models[0]: allows a model that nobody defines: 'nope'"),
        ("state: {store: redis}", "5:8: error: state.url: is missing: store: redis needs it"),
        ("state: {store: redis, url: 'http://h'}",
         "5:28: error: state.url: must begin with redis://, rediss://, unix://"),
        ("state: {url: 'redis://:pw@h'}",
         "5:14: warning: state.url: a secret in the file itself: "
         "write {env: NAME}, {file: path} or {credential: name}"),
        ("state: {url: 'redis://h', prefix: 'a b'}",
         "5:35: error: state.prefix: expected text like ^[A-Za-z0-9._:-]{1,64}$, not 'a b'"),
        ("include: [7]", "5:11: error: include[0]: expected text (quote it: \"7\"), not 7"),
        ("include: conf.d", "5:10: error: include: expected a list, not 'conf.d'"),
        ("telemetry: {access_log: {format: xml}}",
         "5:34: error: telemetry.access_log.format: expected json or text, not 'xml'"),
        ("routings: {r: {targets: [gpt], sticky: header:Authorization}}",
         "5:40: error: routings.r.sticky: expected user, prefix or header:NAME, not 'header:Authorization'"),
        ("routings: {r: {targets: [{use: gpt, when: {has_image: true}}]}}",
         "5:44: error: routings.r.targets[0].when.has_image: unknown option 'has_image' (did you mean 'has_images'?)"),
        ("routings: {r: {targets: [gpt], hedge: {after: p99}}}",
         "5:47: error: routings.r.hedge.after: expected 2s or 500ms, above 0, or p95, not 'p99'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(addition: str, finding: str) -> None:
    text = BASE + addition.replace("%s", HASH) + "\n"
    assert f"g.yaml:{finding}" in messages(text)


def test_every_mistake_is_found_in_one_pass() -> None:
    text = (
        BASE
        + "  b: {provider: opena, modell: x}\nserver: {drain: soon}\nroutings: {r: {targets: [gtp], sticky: yes}}\n"
    )
    assert messages(text) == [
        "g.yaml:5:6: error: deployments.b.model: is missing",
        "g.yaml:5:17: error: deployments.b.provider: no provider 'opena' (did you mean 'openai'?)",
        "g.yaml:5:24: error: deployments.b.modell: unknown option 'modell' (did you mean 'model'?)",
        "g.yaml:6:17: error: server.drain: expected 30s, 500ms, 5m or 1h, or 0s, not 'soon'",
        "g.yaml:7:26: error: routings.r.targets[0]: no deployment, adapter or routing 'gtp' (did you mean 'gpt'?)",
        "g.yaml:7:40: error: routings.r.sticky: expected user, prefix or header:NAME, not 'yes'",
    ]


def test_a_mistake_in_retry_is_told_once() -> None:
    (finding,) = messages(BASE + "retry: {attempts: 0}\n")
    assert "retry.attempts" in finding


def test_strict_makes_every_warning_an_error() -> None:
    text = BASE.replace("{env: OPENAI_API_KEY}", "sk-literal")
    assert loaded(text).config
    strict = loaded(text, strict=True)
    assert strict.config is None
    assert {finding.level for finding in strict.findings} == {"error"}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"])
def test_loopback_needs_no_keys(address: str) -> None:
    assert messages(BASE + f'server: {{listen: "{address}", admin: "{address}"}}\n') == []


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "gateway.example:1", "localhost.evil.test:1"])
def test_other_addresses_need_keys_or_insecure(address: str) -> None:
    text = BASE + f'server: {{listen: "{address}"%s}}\n'
    assert "loopback" in "".join(messages(text.replace("%s", "")))
    assert messages(text.replace("%s", ", insecure: true")) == []
    assert messages(text.replace("%s", "") + f'keys: {{k: {{hash: "{HASH}"}}}}\n') == []


def test_two_keys_with_one_hash_are_told() -> None:
    text = BASE + f'keys:\n  a: {{hash: "{HASH}"}}\n  b: {{hash: "{HASH}"}}\n'
    assert messages(text) == ["g.yaml:7:13: error: keys.b.hash: the same key as a"]


def test_emulated_parameters_are_known_ones() -> None:
    text = BASE.replace("model: gpt-4o-mini", "model: gpt-4o-mini, emulate: [respons_format]")
    (finding,) = messages(text)
    assert "deployments.gpt.emulate: no request parameter 'respons_format' (did you mean 'response_format'?)" in finding


def test_a_file_without_deployments_is_warned_of() -> None:
    result = loaded("version: 1\n")
    assert result.config
    assert [finding.level for finding in result.findings] == ["warning"]


@pytest.mark.parametrize(
    ("row", "addition"),
    [
        ("server.workers", "server: {workers: 2}"),
        ("server.listen", "server: {listen: unix:/run/x}"),
        ("server.admin", "server: {admin: fd:http}"),
        ("server.demo", "server: {demo: fd:demo}"),
        ("providers.*.fetch_images", "providers: {openai: {type: openai, fetch_images: true}}"),
        ("providers.*.proxy", "providers: {openai: {type: openai, proxy: 'http://u:p@p:1'}}"),
        ("keys.*.limits.budget", f"keys: {{k: {{hash: '{HASH}', limits: {{budget: 1 USD/day}}}}}}"),
        ("deployments.*.limits.budget", "deployments: {d: {provider: o, model: m, limits: {budget: 20 USD/day}}}"),
        (
            "deployments.*.limits.rpm",
            "deployments: {d: {provider: o, model: m, limits: {rpm: 5, tpm: 9k, parallel: 1}}}",
        ),
        ("deployments.*.price", "deployments: {d: {provider: o, model: m, price: {input: 1, output: 2}}}"),
        ("routings.*.targets.*.limits", "routings: {r: {targets: [{use: gpt, limits: {rpm: 1}}]}}"),
        (
            "routings.*.targets.*.limits.budget",
            "routings: {r: {targets: [{use: gpt, limits: {budget: 20 USD/day}}]}}",
        ),
        ("routings.*.targets.*.when", "routings: {r: {targets: [{use: gpt, when: {stream: true}}]}}"),
        ("routings.*.mirror", "routings: {r: {targets: [gpt], mirror: {to: gpt}}}"),
        ("routings.*.hedge", "routings: {r: {targets: [gpt], hedge: {after: 1s}}}"),
        ("routings.*.sticky", "routings: {r: {targets: [gpt], sticky: user}}"),
        ("routings.*.strategy", "routings: {r: {targets: [gpt], strategy: least_busy}}"),
    ],
)
def test_what_does_nothing_yet_is_refused_as_long_as_the_table_says_so(row: str, addition: str) -> None:
    listed = row in {each.pattern for each in UNSUPPORTED}
    told = any("not supported yet" in finding for finding in messages(addition + "\n"))
    assert told == listed


def test_every_row_of_that_table_is_tried_above() -> None:
    (mark,) = test_what_does_nothing_yet_is_refused_as_long_as_the_table_says_so.pytestmark  # type: ignore[attr-defined]
    assert {each.pattern for each in UNSUPPORTED} <= {row for row, _ in mark.args[1]}


def test_an_option_that_is_switched_off_is_no_use_of_it() -> None:
    text = BASE + "server: {tls: null, cors: [], workers: 1}\nrouting" + "s: {r: {targets: [gpt], hedge: null}}\n"
    assert messages(text) == []


def test_includes_add_names_and_options(tmp_path: Path) -> None:
    conf = tmp_path / "conf.d"
    conf.mkdir()
    (tmp_path / "g.yaml").write_text(BASE + "include: [conf.d/*.yaml]\nserver: {drain: 1s}\n")
    (conf / "b.yaml").write_text("deployments:\n  b: {provider: openai, model: b}\nserver: {keepalive: 9s}\n")
    (conf / "a.yaml").write_text("version: 1\nroutings:\n  r: {targets: [b, gpt]}\n")
    (conf / "c.yaml").write_text("version: 1\n")
    (conf / "other.txt").write_text("][")
    result = loaded_file(tmp_path / "g.yaml")
    assert result.config, result.findings
    assert set(result.config.deployments) == {"gpt", "b"}
    assert (result.config.server.drain, result.config.server.keepalive) == (1.0, 9.0)
    assert result.files == [tmp_path / "g.yaml", conf, conf / "a.yaml", conf / "b.yaml", conf / "c.yaml"]


def test_includes_refuse_what_is_defined_twice(tmp_path: Path) -> None:
    main, more = tmp_path / "g.yaml", tmp_path / "more.yaml"
    main.write_text(BASE + "include: [more.yaml, none.yaml, more.yaml]\nserver: {drain: 1s}\n")
    more.write_text("deployments:\n  gpt: {provider: openai, model: b}\n  x: {provider: zzz, model: b}\n"
                    "server: {drain: 1s}\ninclude: [x]\nversion: 2\n")  # fmt: skip
    assert [str(finding).replace(f"{tmp_path}/", "") for finding in loaded_file(main).findings] == [
        "g.yaml:5:22: error: cannot read none.yaml: No such file or directory",
        "g.yaml:5:33: error: include[2]: more.yaml is included twice",
        "more.yaml:2:3: error: deployments.gpt: written twice, first in g.yaml:4",
        "more.yaml:3:17: error: deployments.x.provider: no provider 'zzz'",
        "more.yaml:4:10: error: server.drain: written twice, first in g.yaml:6",
        "more.yaml:5:1: error: include: only the main file includes others",
        "more.yaml:6:10: error: version: expected 1, not 2",
    ]


def test_a_section_that_is_no_map_cannot_meet_another(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(BASE + "include: [more.yaml]\n")
    (tmp_path / "more.yaml").write_text("deployments: [x]\nversion: 1\nretry: {}\n")
    (finding,) = loaded_file(tmp_path / "g.yaml").findings
    assert "error: deployments: written twice" in str(finding)


def test_a_log_file_in_a_directory_that_is_there_is_fine(tmp_path: Path) -> None:
    assert messages(BASE + f"telemetry: {{access_log: {{to: {tmp_path}/x.log}}}}\n") == []


def test_an_enormous_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_bytes(b"#" * (17 << 20))
    (finding,) = loaded_file(tmp_path / "g.yaml").findings
    assert "longer than" in finding.message


def test_the_digest_names_the_text(tmp_path: Path) -> None:
    assert loaded(BASE).digest == loaded(BASE).digest
    assert loaded(BASE).digest != loaded(BASE + "\n").digest
    assert len(loaded("").digest) == 12


def test_two_thousand_deployments_load_in_time() -> None:
    rows = "".join(f"  d{number}: {{provider: openai, model: m{number}}}\n" for number in range(1998))
    routes = "".join(f"  r{number}: {{targets: [d{number}, r{number + 1}]}}\n" for number in range(500))
    text = (
        BASE + rows + "  openai/*: {provider: openai, model: '*'}\nroutings:\n" + routes + "  r500: {targets: [gpt]}\n"
    )
    began = time.process_time()
    result = loaded(text, ENVIRON)
    assert time.process_time() - began < 1.5
    assert result.config, result.findings
    assert len(result.config.deployments) == 2000

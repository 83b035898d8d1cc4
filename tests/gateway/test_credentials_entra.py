"""Entra's tokens come by whichever of its flows the settings describe."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import pytest
from aiohttp import web

from gateway.contract import Credential
from gateway.credentials import NoCredential, source
from gateway.credentials.entra import LARGEST

SECRET = "swordfish~0123456789"
APP = {"tenant_id": "contoso", "client_id": "app-1"}
SCOPE = "https://cognitiveservices.azure.com/.default"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """A machine without any Azure settings, and with a proxy that would refuse."""
    for name in [name for name in os.environ if name.startswith(("AZURE_", "IDENTITY_")) or name.endswith("_PROXY")]:
        monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def token(count: int, lifetime: object = 3600) -> web.Response:
    return web.json_response({"token_type": "Bearer", "access_token": f"eyJ{count}", "expires_in": lifetime})


def jump(seconds: float) -> None:
    asyncio.get_running_loop().advance(seconds)


async def started(entra: object = True):
    kept = source("entra", {"entra": entra})
    await kept.start()
    return kept


def refused(kept) -> str:
    with pytest.raises(NoCredential) as caught:
        kept.current()
    return caught.value.message


@pytest.fixture
def why(run, endpoint):
    """What the error says when the token endpoint gives this answer."""

    async def main(answer):
        async with endpoint(lambda asked: answer) as server:
            kept = await started({**APP, "client_secret": SECRET, "authority": server.url})
            await kept.close()
            return refused(kept)

    return lambda answer: run(main(answer))


def test_a_client_secret_is_exchanged_for_a_token(run, endpoint):
    async def main():
        async with endpoint(lambda asked: token(1)) as server:
            kept = await started({**APP, "client_secret": SECRET, "authority": server.url + "/"})
            assert kept.current() == Credential("bearer", token="eyJ1")
            assert (server.asked[0].method, server.asked[0].path) == ("POST", "/contoso/oauth2/v2.0/token")
            assert server.asked[0].form == {
                "grant_type": "client_credentials",
                "client_id": "app-1",
                "client_secret": SECRET,
                "scope": SCOPE,
            }
            await kept.close()

    run(main())


def test_the_environment_fills_in_what_the_entry_leaves_out(run, endpoint, monkeypatch):
    async def main():
        async with endpoint(lambda asked: token(1)) as server:
            monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.url)
            monkeypatch.setenv("AZURE_TENANT_ID", "from-environment")
            monkeypatch.setenv("AZURE_CLIENT_ID", "from-environment")
            monkeypatch.setenv("AZURE_CLIENT_SECRET", SECRET)
            kept = await started({"client_id": "app-1", "resource": "https://example.test/"})
            assert server.asked[0].path == "/from-environment/oauth2/v2.0/token"
            assert server.asked[0].form["client_id"] == "app-1"
            assert server.asked[0].form["scope"] == "https://example.test/.default"
            await kept.close()

    run(main())


def test_a_token_is_renewed_before_it_expires(run, endpoint, until):
    async def main():
        async with endpoint(lambda asked: token(len(server.asked))) as server:
            kept = await started({**APP, "client_secret": SECRET, "authority": server.url})
            jump(3300)
            await until(lambda: kept.current().token == "eyJ2")
            await kept.close()

    run(main())


def test_fifty_refreshes_at_once_are_one_request(run, endpoint):
    async def main():
        async with endpoint(lambda asked: token(len(server.asked))) as server:
            kept = await started({**APP, "client_secret": SECRET, "authority": server.url})
            assert await asyncio.gather(*(kept.refresh() for _ in range(50))) == [True] * 50
            assert (len(server.asked), kept.current().token) == (2, "eyJ2")
            await kept.close()

    run(main())


def test_an_endpoint_that_recovers_is_noticed_without_a_request_of_a_client(run, endpoint, until):
    async def main():
        async with endpoint(lambda asked: token(2) if len(server.asked) > 1 else web.Response(status=503)) as server:
            kept = await started({**APP, "client_secret": SECRET, "authority": server.url})
            assert "answered 503" in refused(kept)
            jump(1)
            await until(lambda: len(server.asked) == 2)
            assert await kept.refresh() is True
            assert kept.current().token == "eyJ2"
            await kept.close()

    run(main())


def test_a_workload_s_token_is_read_again_for_each_request(run, endpoint, monkeypatch, tmp_path):
    file = tmp_path / "federated"

    async def main():
        async with endpoint(lambda asked: token(len(server.asked))) as server:
            monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.url)
            monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(file))
            file.write_text("jwt-one\n")
            kept = await started(APP)
            file.write_text("jwt-two\n")
            assert await kept.refresh() is True
            assert [asked.form["client_assertion"] for asked in server.asked] == ["jwt-one", "jwt-two"]
            assert server.asked[0].form["client_assertion_type"].endswith("assertion-type:jwt-bearer")
            assert "client_secret" not in server.asked[0].form
            await kept.close()

    run(main())


def test_a_missing_federated_token_is_an_error_that_says_so(run, tmp_path):
    async def main():
        kept = await started({**APP, "token_file": str(tmp_path / "absent")})
        await kept.close()
        return refused(kept)

    assert "the federated token's file cannot be read (FileNotFoundError)" in run(main())


@pytest.mark.parametrize(
    ("entra", "client"), [(True, {}), ({"client_id": "user-1"}, {"client_id": "user-1"}), (APP, {"client_id": "app-1"})]
)
def test_without_a_secret_the_machine_s_identity_is_used(run, endpoint, monkeypatch, entra, client):
    async def main():
        async with endpoint(lambda asked: token(1, "3599")) as server:
            monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.url)
            kept = await started(entra)
            assert kept.current() == Credential("bearer", token="eyJ1")
            (asked,) = server.asked
            assert (asked.method, asked.path) == ("GET", "/metadata/identity/oauth2/token")
            assert asked.headers["metadata"] == "true"
            query = {"api-version": "2018-02-01", "resource": "https://cognitiveservices.azure.com"}
            assert asked.query == {**query, **client}
            await kept.close()

    run(main())


def test_app_service_has_an_endpoint_of_its_own_and_says_when_not_how_long(run, endpoint, monkeypatch):
    answer = {"access_token": "eyJ1", "expires_on": str(int(time.time()) + 600)}

    async def main():
        async with endpoint(lambda asked: web.json_response(answer)) as server:
            monkeypatch.setenv("IDENTITY_ENDPOINT", server.url + "/msi/token")
            monkeypatch.setenv("IDENTITY_HEADER", "local-secret")
            kept = await started()
            await kept.close()
            (asked,) = server.asked
            assert (asked.path, asked.query["api-version"]) == ("/msi/token", "2019-08-01")
            assert asked.headers["x-identity-header"] == "local-secret"
            jump(590)
            assert kept.current().token == "eyJ1"
            jump(10)
            refused(kept)

    run(main())


def test_a_refusal_is_known_by_its_names_and_its_text_is_not_repeated(why, caplog):
    refusal = {"error": "invalid_client", "error_codes": [7000215], "error_description": f"Invalid secret {SECRET}"}
    caplog.set_level(logging.DEBUG)
    message = why(web.json_response(refusal, status=401))
    assert message.endswith("the token endpoint answered 401 invalid_client AADSTS7000215.")
    assert SECRET not in message + caplog.text


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            {"status": 401, "text": '{"error": "SECRET", "error_codes": ["SECRET"]}'.replace("SECRET", SECRET)},
            "answered 401.",
        ),
        ({"status": 200, "text": "<html>"}, "answered 200."),
        ({"status": 200, "text": "[]"}, "answered 200."),
        ({"status": 200, "text": '{"access_token": 7, "expires_in": 3600}'}, "answered 200."),
        ({"status": 302, "headers": {"location": "http://127.0.0.1:9/"}}, "answered 302."),
        ({"status": 201, "text": '{"access_token": "eyJ", "expires_in": 3600}'}, "answered 201."),
        ({"status": 200, "text": '{"access_token": "eyJ"}'}, "did not say how long"),
        ({"status": 200, "text": '{"access_token": "eyJ", "expires_in": "soon"}'}, "did not say how long"),
        ({"status": 200, "text": '{"access_token": "eyJ", "expires_in": 0}'}, "expired"),
        ({"status": 200, "text": '{"access_token": "e\\r\\ny", "expires_in": 9}'}, "no secret"),
        ({"status": 200, "body": b" " * (LARGEST + 1)}, "too large"),
    ],
)
def test_an_answer_without_a_good_token_is_an_error(why, answer, reason):
    message = why(web.Response(**answer))
    assert reason in message
    assert SECRET not in message


def test_an_endpoint_that_is_not_there_is_an_error_without_its_address(run, endpoint):
    async def main():
        async with endpoint(lambda asked: token(1)) as server:
            gone = server.url
        kept = await started({**APP, "client_secret": SECRET, "authority": gone})
        await kept.close()
        return refused(kept)

    message = run(main())
    assert "did not answer (ClientConnectorError)" in message
    assert "127.0.0.1" not in message


@pytest.mark.parametrize(
    ("entra", "message"),
    [
        ({"clientid": "x"}, "no option 'clientid'; there are tenant_id, client_id"),
        ({"client_secret": SECRET, "client_id": "x"}, "need tenant_id and client_id"),
        ({"token_file": "/run/token"}, "need tenant_id and client_id"),
        ({**APP, "client_secret": SECRET, "authority": "http://login.example.test"}, "must be an https address"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(entra, message):
    with pytest.raises(ValueError, match=message) as caught:
        source("entra", {"entra": entra})
    assert SECRET not in str(caught.value)


def test_an_authority_without_a_scheme_is_an_https_host():
    assert source("entra", {"entra": {**APP, "client_secret": SECRET, "authority": "login.microsoftonline.us"}})

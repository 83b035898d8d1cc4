"""Google's tokens come from the file that an operator named, or from the machine's default."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time

import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.auth import jwt
from google.auth.compute_engine import _metadata

from gateway.contract import Credential
from gateway.credentials import NoCredential, source

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
SECRET = "swordfish-0123456789"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """A machine without any Google settings, and with a proxy that would refuse."""
    for name in [name for name in os.environ if name.startswith(("GOOGLE_", "GCE_", "CLOUDSDK_", "NO_GCE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def key() -> str:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def account(key):
    """A service account's file as a mapping, for a token endpoint."""
    return lambda url: {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "k",
        "private_key": key,
        "client_email": "sluice@p.example",
        "token_uri": f"{url}/token",
    }


def token(count: int, lifetime: float = 3600) -> web.Response:
    return web.json_response({"access_token": f"ya29.{count}", "expires_in": lifetime, "token_type": "Bearer"})


def jump(seconds: float) -> None:
    asyncio.get_running_loop().advance(seconds)


async def started(credentials: object = None):
    kept = source("google", {} if credentials is None else {"credentials": credentials})
    await kept.start()
    return kept


async def why(credentials: object = None) -> str:
    kept = await started(credentials)
    await kept.close()
    with pytest.raises(NoCredential) as caught:
        kept.current()
    return caught.value.message


@pytest.mark.parametrize("form", [dict, orjson.dumps, "file"])
def test_a_service_account_is_exchanged_for_a_token(run, endpoint, account, tmp_path, form):
    async def main():
        async with endpoint(lambda asked: token(1)) as server:
            given = account(server.url)
            if form == "file":
                given = str(tmp_path / "account.json")
                (tmp_path / "account.json").write_bytes(orjson.dumps(account(server.url)))
            elif form is orjson.dumps:
                given = orjson.dumps(given).decode()
            kept = await started(given)
            assert kept.current() == Credential("bearer", token="ya29.1")
            (asked,) = server.asked
            assert asked.form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
            claims = jwt.decode(asked.form["assertion"], verify=False)
            assert (claims["iss"], claims["scope"]) == ("sluice@p.example", SCOPE)
            assert claims["exp"] - time.time() > 3000
            await kept.close()

    run(main())


def test_a_token_is_renewed_five_minutes_before_it_expires(run, endpoint, account, until):
    async def main():
        async with endpoint(lambda asked: token(len(server.asked))) as server:
            kept = await started(account(server.url))
            jump(3600 - 300)
            await until(lambda: kept.current().token == "ya29.2")
            await kept.close()

    run(main())


def test_fifty_refreshes_at_once_are_one_request(run, endpoint, account):
    async def main():
        async with endpoint(lambda asked: token(len(server.asked))) as server:
            kept = await started(account(server.url))
            assert await asyncio.gather(*(kept.refresh() for _ in range(50))) == [True] * 50
            assert (len(server.asked), kept.current().token) == (2, "ya29.2")
            await kept.close()

    run(main())


@pytest.mark.parametrize("given", [None, True, "default"])
def test_the_default_credentials_are_those_the_environment_names(run, endpoint, account, monkeypatch, tmp_path, given):
    async def main():
        async with endpoint(lambda asked: token(1)) as server:
            (tmp_path / "adc.json").write_bytes(orjson.dumps(account(server.url)))
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
            kept = await started(given)
            assert kept.current() == Credential("bearer", token="ya29.1")
            await kept.close()

    run(main())


def test_on_a_google_machine_the_metadata_server_is_asked(run, endpoint, monkeypatch):
    def answer(asked):
        google = {"metadata-flavor": "Google"}
        if asked.path.endswith("/token"):
            return web.json_response({"access_token": "ya29.vm", "expires_in": 3599}, headers=google)
        if asked.path.endswith("/default/"):
            return web.json_response({"email": "vm@p.example", "scopes": [SCOPE], "aliases": []}, headers=google)
        return web.Response(text="p", headers=google)

    async def main():
        async with endpoint(answer) as server:
            host = server.url.removeprefix("http://")
            monkeypatch.setenv("GCE_METADATA_IP", host)
            # The library reads GCE_METADATA_HOST once, when it is imported.
            monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", host)
            kept = await started()
            assert kept.current() == Credential("bearer", token="ya29.vm")
            assert {asked.headers["metadata-flavor"] for asked in server.asked} == {"Google"}
            await kept.close()

    run(main())


def test_a_federated_identity_is_exchanged_for_a_token(run, endpoint, tmp_path):
    (tmp_path / "subject").write_text("jwt-one")

    async def main():
        async with endpoint(lambda asked: token(1)) as server:
            kept = await started(
                {
                    "type": "external_account",
                    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a/providers/b",
                    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                    "token_url": f"{server.url}/v1/token",
                    "credential_source": {"file": str(tmp_path / "subject")},
                    "universe_domain": "googleapis.com",
                }
            )
            assert kept.current() == Credential("bearer", token="ya29.1")
            assert server.asked[0].form["subject_token"] == "jwt-one"
            await kept.close()

    run(main())


@pytest.mark.parametrize("module", ["google.auth.transport.requests", "requests"])
def test_without_the_library_the_error_names_the_extra(run, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert "pip install 'sluiceway[google]'" in run(why({"type": "service_account"}))


@pytest.mark.parametrize("status", [400, 307])
def test_a_refusal_s_text_is_not_repeated(run, endpoint, account, key, caplog, status):
    async def main():
        def answer(asked):
            refusal = {"error": "invalid_grant", "error_description": asked.form["assertion"]}
            return web.json_response(refusal, status=status, headers={"location": "/elsewhere"})

        async with endpoint(answer) as server:
            message = await why(account(server.url))
            assert {asked.path for asked in server.asked} == {"/token"}
            return message, server.asked[0].form["assertion"]

    caplog.set_level(logging.DEBUG)
    message, assertion = run(main())
    assert "Google's library gave up (" in message
    assert assertion not in message + caplog.text
    assert key.splitlines()[1] not in message + caplog.text


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("/nowhere/account.json", "cannot be read (FileNotFoundError)"),
        ("{" + SECRET, "is no JSON"),
        (7, "neither a path nor a JSON object"),
        ({"type": "gdch_service_account"}, "is none of service_account, authorized_user, external_account"),
        ({"type": "service_account", "private_key": SECRET}, "MalformedError"),
    ],
)
def test_credentials_that_make_no_sense_say_so_without_themselves(run, caplog, given, reason):
    message = run(why(given))
    assert reason in message
    assert SECRET not in message + caplog.text


def test_a_machine_without_any_credentials_is_an_error(run, monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    assert "DefaultCredentialsError" in run(why())

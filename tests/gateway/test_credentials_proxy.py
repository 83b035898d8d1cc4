"""Secrets of a provider that is reached by a proxy are fetched by the same proxy; this machine's own services never."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from upstreams import ScriptedUpstream, answer

from gateway.contract import Credential
from gateway.credentials import NoCredential, Source, source

Run = Callable[[Any], Any]
ACCESS = "s3cret-password"
REFUSES = [{"t": "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"}, {"fin": True}]
APP = {"tenant_id": "contoso", "client_id": "app-1", "client_secret": "client-secret"}
BASIC = b"proxy-authorization: basic dxnlcjpzm2nyzxqtcgfzc3dvcmq="


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A machine with nothing of its own."""
    prefixes = ("AWS_", "AZURE_", "GOOGLE_", "GCE_", "IDENTITY_")
    for name in [name for name in os.environ if name.startswith(prefixes) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def url(proxy: ScriptedUpstream) -> str:
    return proxy.url.replace("//", f"//user:{ACCESS}@")


async def started(kind: str, proxy: ScriptedUpstream, **options: Any) -> Source:
    kept = source(kind, {**options, "proxy": url(proxy)})
    await kept.start()
    return kept


async def refused(kind: str, **options: Any) -> tuple[bytes, str]:
    """What a proxy that refuses was asked, and what became of the secret."""
    async with ScriptedUpstream(REFUSES) as proxy:
        kept = await started(kind, proxy, **options)
        await kept.close()
        with pytest.raises(NoCredential) as caught:
            kept.current()
        return proxy.requests[0], caught.value.message


def private_key() -> str:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def options_of(kind: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What makes the source ask an https endpoint for a secret."""
    if kind == "entra":
        return {"entra": {**APP, "authority": "https://login.test"}}
    if kind == "google":
        account = {"type": "service_account", "client_email": "s@p.example", "token_uri": "https://login.test/token"}
        return {"credentials": {**account, "private_key": private_key()}}
    (tmp_path / "jwt").write_text("token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/sluice")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "https://login.test")
    return {"region": "eu-central-1"}


@pytest.mark.parametrize("kind", ["entra", "google", "aws"])
def test_a_token_endpoint_is_asked_by_the_proxy_and_the_password_shows_nowhere(
    run: Run, kind: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asked, message = run(refused(kind, **options_of(kind, tmp_path, monkeypatch)))
    assert asked.startswith(b"CONNECT login.test:443 ")
    assert BASIC in asked.lower()
    shown = message + "".join(record.getMessage() for record in caplog.records if record.name.startswith("gateway"))
    assert ACCESS not in shown
    assert "login.test" not in message


def test_a_secret_that_came_by_the_proxy_is_used(run: Run) -> None:
    token = answer(orjson.dumps({"access_token": "eyJ1", "expires_in": 3600}).decode())

    async def main() -> None:
        async with ScriptedUpstream([{"t": token}]) as proxy:
            kept = await started("entra", proxy, entra={**APP, "authority": "http://127.0.0.1:9"})
            assert kept.current() == Credential("bearer", token="eyJ1")
            assert proxy.requests[0].startswith(b"POST http://127.0.0.1:9/contoso/oauth2/v2.0/token HTTP/1.1\r\n")
            await kept.close()

    run(main())


def test_the_machines_own_identity_is_asked_without_the_proxy(run: Run, endpoint: Any) -> None:
    async def main() -> None:
        def token(asked: Any) -> web.Response:
            return web.json_response({"access_token": "eyJ2", "expires_in": 3600})

        async with endpoint(token) as server, ScriptedUpstream(REFUSES) as proxy:
            kept = await started("entra", proxy, entra={"metadata": server.url})
            assert kept.current() == Credential("bearer", token="eyJ2")
            assert proxy.connections == []
            await kept.close()

    run(main())

"""Amazon's credentials come from where an operator put them, in Amazon's own order."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from gateway.contract import Credential
from gateway.credentials import NoCredential, source
from gateway.credentials.keeping import Fixed

SECRET = "wJalrXUtnFEMI-swordfish"
GIVEN = {"access_key_id": "AKIDGIVEN", "secret_access_key": SECRET}


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """A machine without any AWS settings, and without a metadata service."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def expiry(seconds: float = 3600) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def keys(count: int, seconds: float = 3600) -> dict[str, str]:
    return {
        "Code": "Success",
        "AccessKeyId": f"AKID{count}",
        "SecretAccessKey": SECRET,
        "Token": f"session{count}",
        "Expiration": expiry(seconds),
    }


def jump(seconds: float) -> None:
    asyncio.get_running_loop().advance(seconds)


async def started(options=None):
    kept = source("aws", options or {})
    await kept.start()
    return kept


async def why(options=None) -> str:
    kept = await started(options)
    await kept.close()
    with pytest.raises(NoCredential) as caught:
        kept.current()
    return caught.value.message


def test_given_keys_need_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore", None)
    found = source("aws", {**GIVEN, "session_token": "s"}).current()
    assert found == Credential("aws", access_key="AKIDGIVEN", secret_key=SECRET, session_token="s")


def test_keys_of_the_environment_need_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore", None)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "s")
    assert source("aws", {}).current() == Credential("aws", access_key="AKIDENV", secret_key=SECRET, session_token="s")
    assert source("aws", GIVEN).current().access_key == "AKIDGIVEN"


def test_a_bedrock_key_of_the_environment_goes_before_its_access_keys(monkeypatch):
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "ABSK")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert source("aws", {}).current() == Credential("key", token="ABSK")
    assert source("aws", GIVEN).current().access_key == "AKIDGIVEN"


@pytest.mark.parametrize("half", [{"access_key_id": "AKID"}, {"secret_access_key": SECRET}])
def test_half_a_pair_is_refused_by_name_and_without_the_secret(half):
    with pytest.raises(ValueError, match="access_key_id and secret_access_key belong together") as caught:
        source("aws", half)
    assert SECRET not in str(caught.value)


def test_without_the_library_the_error_names_the_extra(run, monkeypatch):
    for module in ("botocore", "botocore.session", "botocore.exceptions", "botocore.config"):
        monkeypatch.setitem(sys.modules, module, None)
    assert "pip install 'sluiceway[aws]'" in run(why())


def test_an_empty_machine_says_where_it_looked(run):
    assert "neither a profile, web identity, container nor instance offers one" in run(why())


def test_a_profile_goes_before_the_environment_and_is_read_again(run, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    file = tmp_path / "credentials"

    def write(name: str) -> None:
        file.write_text(f"[work]\naws_access_key_id = {name}\naws_secret_access_key = {SECRET}\n")

    async def main():
        write("AKIDONE")
        kept = await started({"profile": "work"})
        assert kept.current() == Credential("aws", access_key="AKIDONE", secret_key=SECRET)
        write("AKIDTWO")
        assert await kept.refresh() is True
        assert kept.current().access_key == "AKIDTWO"
        await kept.close()

    run(main())


def test_a_profile_that_does_not_exist_is_an_error_of_its_own_kind(run):
    assert "ProfileNotFound" in run(why({"profile": "nowhere"}))


def test_a_container_s_credentials_are_renewed_before_they_expire(run, monkeypatch, tmp_path, endpoint, until):
    token_file = tmp_path / "token"
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token_file))

    async def main():
        async with endpoint(lambda asked: web.json_response(keys(len(server.asked)))) as server:
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/v1/credentials")
            token_file.write_text("first")
            kept = await started()
            assert kept.current() == Credential("aws", access_key="AKID1", secret_key=SECRET, session_token="session1")
            token_file.write_text("second")
            jump(3600 - 300)
            await until(lambda: kept.current().access_key == "AKID2")
            assert [asked.headers["authorization"] for asked in server.asked] == ["first", "second"]
            await kept.close()

    run(main())


def test_the_expiry_of_a_container_s_credentials_is_kept_to_the_second(run, monkeypatch, endpoint):
    async def main():
        async with endpoint(lambda asked: web.json_response(keys(1))) as server:
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url)
            kept = await started()
            await kept.close()
            jump(3600 - 5)
            assert kept.current().access_key == "AKID1"
            jump(5)
            with pytest.raises(NoCredential):
                kept.current()

    run(main())


def test_fifty_refreshes_at_once_ask_the_container_s_endpoint_once(run, monkeypatch, endpoint):
    async def main():
        async with endpoint(lambda asked: web.json_response(keys(len(server.asked)))) as server:
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url)
            kept = await started()
            assert await asyncio.gather(*(kept.refresh() for _ in range(50))) == [True] * 50
            assert (len(server.asked), kept.current().access_key) == (2, "AKID2")
            await kept.close()

    run(main())


STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>AKIDSTS</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
<SessionToken>stsession</SessionToken><Expiration>{expiry}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""
REFUSAL = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>InvalidIdentityToken</Code><Message>Not a valid token: {echo}</Message></Error></ErrorResponse>"""


@pytest.fixture
def web_identity(monkeypatch, tmp_path):
    (tmp_path / "jwt").write_text(SECRET)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/sluice")
    return lambda url: monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)


def test_a_web_identity_is_exchanged_at_sts(run, endpoint, web_identity, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # would refuse: the proxies of the environment are not used

    async def main():
        text = STS.format(secret=SECRET, expiry=expiry())
        async with endpoint(lambda asked: web.Response(text=text, content_type="text/xml")) as server:
            web_identity(server.url)
            kept = await started({"region": "eu-central-1"})
            assert kept.current() == Credential(
                "aws", access_key="AKIDSTS", secret_key=SECRET, session_token="stsession"
            )
            form = server.asked[0].form
            assert (form["Action"], form["WebIdentityToken"]) == ("AssumeRoleWithWebIdentity", SECRET)
            assert len(server.asked) == 1
            await kept.close()

    run(main())


def test_a_refusal_of_sts_is_known_by_its_code_and_its_text_is_not_repeated(run, endpoint, web_identity, caplog):
    async def main():
        text = REFUSAL.format(echo=SECRET)
        async with endpoint(lambda asked: web.Response(status=400, text=text, content_type="text/xml")) as server:
            web_identity(server.url)
            return await why({"region": "eu-central-1"})

    caplog.set_level(logging.DEBUG)
    message = run(main())
    assert "STS refused (InvalidIdentityToken)" in message
    assert SECRET not in message + caplog.text


def test_an_instance_s_role_is_read_with_a_session_token_of_its_metadata_service(run, monkeypatch, endpoint):
    def answer(asked):
        if asked.method == "PUT":
            return web.Response(text="imds-session")
        if asked.headers.get("x-aws-ec2-metadata-token") != "imds-session":
            return web.Response(status=401)
        if asked.path.endswith("/security-credentials/"):
            return web.Response(text="sluice-role")
        return web.json_response(keys(7))

    async def main():
        async with endpoint(answer) as server:
            monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
            kept = await started()
            assert kept.current() == Credential("aws", access_key="AKID7", secret_key=SECRET, session_token="session7")
            await kept.close()

    run(main())


def test_what_is_given_is_never_fetched():
    assert isinstance(source("aws", GIVEN), Fixed)

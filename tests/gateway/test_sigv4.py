from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from unittest import mock
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract import Credential
from gateway.sigv4 import canonical_request, sign

NOON = datetime(2026, 11, 22, 18, tzinfo=UTC)
KEY = Credential("aws", access_key="AKIDEXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TEMPORARY = Credential("aws", "", KEY.access_key, KEY.secret_key, "SESSIONTOKENEXAMPLE")
BODY = b'{"messages":[{"role":"user","content":[{"text":"hi"}]}]}'
HOST = "https://bedrock-runtime.us-east-1.amazonaws.com"
PROFILE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123def456"
VECTORS = [
    (
        KEY,
        PROFILE,
        "content-type;host;x-amz-date",
        "e8496a189e43ea830c730a5fb56527f2e538724a051a3266f24f811fed920ad6",
        "29824198cf80c401ff1738128848e84c128b053941a3faaf05fc100fec0e0083",
    ),
    (
        TEMPORARY,
        ARN,
        "content-type;host;x-amz-date;x-amz-security-token",
        "43184b0e22a554b76210ec0dda507659d6c67156b84a3a2b14f625af71f16c9d",
        "aa6cbdc8b613b78ce386bdfbc84ba36e00f013ca6010e48681e3f87331241085",
    ),
]


def url_of(model: str) -> str:
    return f"{HOST}/model/{quote(model, safe='')}/converse-stream"


def test_the_body_of_the_vectors_has_the_published_hash() -> None:
    assert hashlib.sha256(BODY).hexdigest() == "c3335e07d6e89650bf94cb98664be69f8774dbc3198df221f113db0a59ea14f0"


@pytest.mark.parametrize(("credential", "model", "names", "request_hash", "signature"), VECTORS, ids=["profile", "arn"])
def test_the_published_vectors_are_reproduced(
    credential: Credential, model: str, names: str, request_hash: str, signature: str
) -> None:
    headers = {"Content-Type": "application/json", "Accept": "application/vnd.amazon.eventstream"}
    signed = sign("POST", url_of(model), headers, BODY, credential, "us-east-1", "bedrock", NOON.timestamp())
    assert signed["x-amz-date"] == "20261122T180000Z"
    assert signed.get("x-amz-security-token", "") == credential.session_token
    assert signed["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/bedrock/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    values = {"content-type": "application/json", "host": HOST.removeprefix("https://"), **signed}
    text = canonical_request("POST", url_of(model), {name: values[name] for name in names.split(";")}, BODY)
    assert hashlib.sha256(text.encode()).hexdigest() == request_hash


def test_an_encoded_path_is_encoded_once_more() -> None:
    path = canonical_request("POST", url_of(ARN), {"host": "h"}, b"").split("\n")[1]
    assert path.startswith("/model/arn%253Aaws%253Abedrock%253Aus-east-1")
    assert "%252F" in path


def by_botocore(method: str, url: str, headers: dict[str, str], body: bytes, credential: Credential) -> dict[str, str]:
    """What AWS's own library adds to the same request."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    keys = Credentials(credential.access_key, credential.secret_key, credential.session_token or None)
    request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
    with mock.patch("botocore.auth.get_current_datetime", lambda: NOON.replace(tzinfo=None)):
        SigV4Auth(keys, "bedrock", "eu-central-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items() if name not in headers}


PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
TOKENS = st.text("abcABC/+=012", min_size=1, max_size=40)


@given(
    segments=st.lists(PRINTABLE.map(lambda text: quote(text, safe="")), max_size=4),
    query=st.lists(st.text("abc=%20", min_size=1, max_size=8), max_size=3).map("&".join),
    headers=st.dictionaries(st.sampled_from(["Content-Type", "X-Amz-Target", "x-amz-meta-a"]), PRINTABLE, max_size=3),
    body=st.binary(max_size=64),
    origin=st.sampled_from([HOST, "http://127.0.0.1:4010", "https://vpce.test:443", "http://h:80", "https://h:8443"]),
    token=st.one_of(st.just(""), TOKENS),
    secret=TOKENS,
)
def test_every_request_is_signed_as_botocore_signs_it(
    segments: list[str],
    query: str,
    headers: dict[str, str],
    body: bytes,
    origin: str,
    token: str,
    secret: str,
) -> None:
    credential = Credential("aws", "", "AKID", secret, token)
    url = origin + "/" + "/".join(segments) + ("?" + query if query else "")
    signed = sign("POST", url, headers, body, credential, "eu-central-1", "bedrock", NOON.timestamp())
    assert signed == by_botocore("POST", url, headers, body, credential)


@pytest.mark.parametrize(
    ("path", "canonical"), [("/a/../b//./c/", "/b/c/"), ("", "/"), ("/..", "/"), ("/a%2Fb", "/a%252Fb")]
)
def test_a_canonical_path_has_no_dots_and_no_empty_segments(path: str, canonical: str) -> None:
    assert canonical_request("GET", f"https://h.test{path}", {"host": "h.test"}, b"").split("\n")[1] == canonical


def test_headers_that_proxies_rewrite_are_not_signed() -> None:
    headers = {"user-agent": "x", "accept-encoding": "gzip", "connection": "close", "host": "proxy.test"}
    signed = sign("POST", url_of(PROFILE), headers, b"", KEY, "us-east-1", "bedrock", 0.0)
    assert "SignedHeaders=host;x-amz-date," in signed["authorization"]


def test_the_secret_is_in_no_header() -> None:
    signed = sign("POST", url_of(PROFILE), {}, b"", KEY, "us-east-1", "bedrock", 0.0)
    assert KEY.secret_key not in "".join(signed.values())

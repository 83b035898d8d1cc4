"""AWS Bedrock: Converse and ConverseStream, signed with SigV4 or under a Bedrock API key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.auth import bearer
from gateway.contract import Credential, Problem, Provider, Translation, UpstreamRequest
from gateway.sigv4 import sign
from plugins.bedrock.refusals import read_error
from plugins.bedrock.request import build_request, is_model
from plugins.bedrock.response import read_response
from plugins.bedrock.stream import open_stream
from plugins.bedrock.table import table

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_OPTIONS = frozenset(("region", "profile", "access_key_id", "secret_access_key", "session_token"))


def authorize(request: UpstreamRequest, credential: Credential, now: float) -> Mapping[str, str]:
    """SigV4 headers for AWS credentials, else the API key as a bearer token."""
    if credential.kind != "aws":
        return bearer(request, credential, now)
    region, _, service = request.scope.partition("/")
    return sign(request.method, request.url, request.headers, request.body, credential, region, service, now)


def check(options: Mapping[str, Any], model: str) -> Sequence[Problem]:
    """What is wrong with a provider entry's options, or with a deployment's model ("" and "*" are none)."""
    problems = []
    region = options.get("region")
    if region is not None and not (isinstance(region, str) and _REGION.fullmatch(region)):
        problems.append(Problem("region", "is no AWS region, such as eu-central-1"))
    if model not in ("", "*") and not is_model(model):
        problems.append(Problem("model", "is no Bedrock model id, inference profile or ARN"))
    if bool(options.get("access_key_id")) != bool(options.get("secret_access_key")):
        lacking = "secret_access_key" if options.get("access_key_id") else "access_key_id"
        problems.append(Problem(lacking, "is missing: both halves of the key are needed"))
    return problems


def credential(options: Mapping[str, Any]) -> str:
    """`key` for an entry with a Bedrock API key, else `aws`."""
    return "key" if options.get("api_key") else "aws"


PROVIDER = Provider(
    name="bedrock",
    read_error=read_error,
    authorize=authorize,
    table=table,
    base_url="https://bedrock-runtime.{region}.amazonaws.com",
    own_urls=("s3://",),
    chat=Translation(build_request, read_response, open_stream),
    options=_OPTIONS,
    check=check,
    credential=credential,
    models="plugins/bedrock/models.yaml",
    env="AWS_BEARER_TOKEN_BEDROCK",
)

"""Names of models, known and hostile, and the paths that wildcards make of them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from faults.casefiles import Case, body, call, cases, fill, head, parameters, words
from faults.harness import Results, drive_all
from faults.judging import Check, Outcome, content_of, headers_of
from faults.planned import Arrival, Planned
from faults.serving import AWS_KEY, AWS_SECRET, Gateway, deployment, openai, profile, serving
from faults.wireclient import Step, ask
from upstreams import answer

FILE = {name: case for name, case in cases("model_names").items() if "model" in case}
CONVERSE = orjson.dumps(
    {
        "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
    }
).decode()
REGION = "us-east-1"


async def drive(wanted: list[str], folder: Path) -> Results:
    """Cases one after the other; every provider is the same server."""
    provider = Planned(_answer)
    async with provider:
        aws = {"access_key_id": AWS_KEY, "secret_access_key": AWS_SECRET, "region": REGION}
        providers = {
            "a": openai(provider.url),
            "aws": {"type": "bedrock", "base_url": provider.url, **aws},
        }
        deployments = {"m-r0": deployment("a", "m-r0"), "m-forbidden": deployment("a", "m-forbidden")}
        deployments["bedrock/*"] = deployment("aws", "*")
        async with serving(folder, profile(providers, deployments, ["m-forbidden"])) as gateway:

            async def one(case: Case) -> Outcome:
                return await send(gateway, provider, case)

            return await drive_all(gateway, [FILE[name] for name in wanted], one, width=1, checks=CHECKS)


def _answer(arrival: Arrival) -> list[Step]:
    return [{"t": answer(CONVERSE)}] if arrival.raw.startswith(b"POST /model/") else [{"t": "{{OK}}"}]


async def send(gateway: Gateway, provider: Planned, case: Case) -> Outcome:
    """Ask for the case's model."""
    begun = len(provider.arrivals)
    content = body(fill(case["model"]))
    target, extra = "/v1/chat/completions", ""
    if "twice_in" in case:
        assert case["twice_in"] == ["json body", "?model=m-forbidden", "x-model header"]
        target, extra = target + "?model=m-forbidden", "x-model: m-forbidden\r\n"
    start = head().replace("/v1/chat/completions", target)
    seen = await ask(gateway.port, f"{start}{extra}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    outcome = Outcome(case, seen, known=words("m-r0"))
    outcome.requests = [arrival.raw for arrival in provider.arrivals[begun:]]
    outcome.after = (await ask(gateway.port, call("m-r0"))).last
    return outcome


def path_of(request: bytes) -> str:
    """The target of a raw request."""
    return request.split(b" ", 2)[1].decode("latin-1")


def _path_one_of(outcome: Outcome, wanted: list[str]) -> str:
    (request,) = outcome.requests
    return "" if path_of(request) in wanted else path_of(request)


def _sigv4_valid(outcome: Outcome, wanted: bool) -> str:
    """Sign the request as it arrived once more, with Amazon's own code."""
    (request,) = outcome.requests
    headers = headers_of(request)
    scheme, _, parts = headers["authorization"].partition(" ")
    given = dict(part.strip().split("=", 1) for part in parts.split(","))
    signed = {name: headers[name] for name in given["SignedHeaders"].split(";")}
    again = AWSRequest("POST", f"http://{headers['host']}{path_of(request)}", headers=signed, data=content_of(request))
    again.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials(AWS_KEY, AWS_SECRET), "bedrock", REGION)
    signature = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    scope = f"{AWS_KEY}/{headers['x-amz-date'][:8]}/{REGION}/bedrock/aws4_request"
    good = scheme == "AWS4-HMAC-SHA256" and given["Credential"] == scope and given["Signature"] == signature
    return "" if good == wanted else f"{headers['authorization']} instead of {signature}"


def _routed(outcome: Outcome, wanted: str) -> str:
    got = [line["deployment"] for line in outcome.log] + [outcome.answer.header("x-gateway-deployment")]
    return "" if set(got) == {wanted} else str(got)


NEVER = {
    "a path with decoded dots": lambda path: ".." not in path,
    "a query string": lambda path: not urlsplit(path).query,
    "a request without the /converse suffix": lambda path: path.endswith("/converse"),
    "a connection to evil.test": lambda path: path.startswith("/model/") and path.endswith("/converse"),
}


def _never(outcome: Outcome, prose: str) -> str:
    """What arrived here, if anything, is a request to our provider; and an answer came from nowhere else."""
    paths = [path_of(request) for request in outcome.requests]
    stray = len(paths) != (outcome.answer.status == 200)
    return f"{paths}" if stray or not all(NEVER[prose](path) for path in paths) else ""


CHECKS: dict[str, Check] = {
    "upstream_path_one_of": _path_one_of,
    "sigv4_valid": _sigv4_valid,
    "routed": _routed,
    "never": _never,
}


@pytest.mark.parametrize("case", parameters(list(FILE)))
def test_a_model_name_selects_a_route_or_nothing(case: str, results: Results) -> None:
    results.verify(case)


def test_the_log_is_clean_after_all_of_them(results: Results) -> None:
    assert results.log == []

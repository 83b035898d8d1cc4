"""Every URL of the specification's guard, through image fetching as the gateway does it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from imageweb import ADDRESS, HOST, PNG, Web, served, web
from upstreams import Step

from gateway.envelope import open_envelope
from gateway.errors import InvalidRequest
from gateway.images import Fetched
from gateway.limits import Ledger

Run = Callable[[Any], Any]
FAULTS = Path(__file__).resolve().parents[3] / "shared" / "faults" / "ssrf_urls.yaml"
MIB = 1 << 20


def rows() -> list[Any]:
    if not FAULTS.is_file():
        return [pytest.param({}, marks=pytest.mark.skip(reason="the fault cases are not beside the project"))]
    return [pytest.param(case, id=case["id"]) for case in yaml.safe_load(FAULTS.read_text(encoding="utf-8"))["cases"]]


def script(case: dict[str, Any]) -> Sequence[Step]:
    """What the server at the end of the URL does."""
    if "redirect" in case:
        return served(b"", status="302 Found", Location=case["redirect"])
    if "body_mib" in case:
        return [{"t": UNSAID}, {"rep": {"t": "x" * 1024, "n": case["body_mib"] * 1024}}]
    if "bytes_per_s" in case:
        return [{"drip": {"t": UNSAID + "x" * 100, "every": 1 / case["bytes_per_s"]}}]
    return served(PNG, case.get("content_type", "image/png"))


UNSAID = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n"


def names(case: dict[str, Any]) -> dict[str, Any]:
    """The addresses of every host, that of the case as the case says; one more for a second look."""
    host = case["url"].partition("://")[2].partition("/")[0].partition("#")[0].partition(":")[0].rstrip(".")
    if "second_resolve" in case:
        return {host: [case["resolves"], case["second_resolve"]]}
    return {HOST: [ADDRESS], host: case["resolves"]} if "resolves" in case else {HOST: [ADDRESS]}


async def judged(case: dict[str, Any], internet: Web) -> tuple[str, str]:
    """What became of a request with this URL: its verdict by the words of the file, and the error's text."""
    loop: Any = asyncio.get_running_loop()
    part = {"type": "image_url", "image_url": {"url": case["url"]}}
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    request = open_envelope(orjson.dumps(body))
    fetching = asyncio.ensure_future(internet.images().inlined(request, (), Fetched(Ledger(64 * MIB))))
    if "bytes_per_s" in case:
        await internet.server.request_count(1)
        loop.advance(10)
    try:
        got = await fetching
    except InvalidRequest as error:
        assert (error.status, error.code, error.param) == (
            400,
            "invalid_image_url",
            "messages[0].content[0].image_url.url",
        )
        return "deny", error.message
    url = got.get("messages")[0]["content"][0]["image_url"]["url"]
    return ("inline" if got is request else "allow"), url


@pytest.mark.parametrize("case", rows())
def test_the_guard_gives_the_verdict_of_the_specification(run: Run, case: dict[str, Any]) -> None:
    async def main() -> None:
        async with web(script(case), names=names(case)) as internet:
            found, told = await judged(case, internet)
            opened = [address for _, address, _ in internet.opened]
            assert found == case["verdict"]
            if found == "allow":
                assert told.startswith("data:image/png;base64,")
                assert opened == [case.get("must_connect") or case.get("resolves", ["172.32.0.1"])[0]]
                assert len(internet.asked) == 1
            elif {"redirect", "body_mib", "bytes_per_s", "content_type"} & set(case):
                assert opened == [ADDRESS]
            else:
                assert not opened
            if found == "deny":
                assert not any(address in told for address in (*case.get("resolves", ()), "127.0.0.1", "169.254"))

    run(main())


def test_the_file_has_the_rows_that_it_had(shared: Path) -> None:
    cases = yaml.safe_load((shared / "faults" / "ssrf_urls.yaml").read_text(encoding="utf-8"))["cases"]
    assert [case["id"] for case in cases] == [f"SS-{number:03}" for number in range(1, 41)]
    assert {case["verdict"] for case in cases} == {"allow", "deny", "inline"}

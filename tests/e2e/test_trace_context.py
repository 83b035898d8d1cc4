"""The W3C trace context crosses the gateway, with nothing installed or configured for traces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livegateway import HELLO, gateway_before
from upstreams import OK_BODY, ScriptedUpstream, answer

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def crossed(folder: Path, served: Callable[..., Any], **headers: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The headers that reached the upstream, and the line of the log."""

    async def main() -> tuple[bytes, dict[str, Any]]:
        async with ScriptedUpstream([{"t": answer(OK_BODY)}]) as upstream, gateway_before(folder, upstream.url) as live:
            assert (await live.post({"model": "m", "messages": HELLO}, **headers)).status == 200
            return upstream.requests[0], (await live.logged(1))[0]

    request, line = served(main())
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}, line


def test_a_valid_context_reaches_the_upstream_and_the_log(tmp_path: Path, served: Callable[..., Any]) -> None:
    sent, line = crossed(tmp_path, served, Traceparent=PARENT, Tracestate="a=1,  b=2")
    assert (sent["traceparent"], sent["tracestate"]) == (PARENT, "a=1,b=2")
    assert line["trace_id"] == TRACE


@pytest.mark.parametrize(
    "headers",
    [
        {"Traceparent": PARENT.upper(), "Tracestate": "a=1"},
        {"Traceparent": f"{PARENT}, {PARENT}"},
        {"Traceparent": PARENT, "traceparent": PARENT},
        {"Traceparent": "' or 1=1"},
        {"Tracestate": "a=1"},
        {},
    ],
)
def test_no_context_is_made_up_and_a_malformed_one_goes_no_further(
    tmp_path: Path, served: Callable[..., Any], headers: dict[str, str]
) -> None:
    sent, line = crossed(tmp_path, served, **headers)
    assert not {"traceparent", "tracestate"} & sent.keys()
    assert "trace_id" not in line


def test_a_malformed_state_is_dropped_alone(tmp_path: Path, served: Callable[..., Any]) -> None:
    sent, _ = crossed(tmp_path, served, Traceparent=PARENT, Tracestate="a=1,A=2")
    assert sent["traceparent"] == PARENT
    assert "tracestate" not in sent

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from upstreams import ScriptedUpstream, Step, certificates

from gateway.errors import UpstreamReset
from gateway.timers import Limits
from gateway.upstream import Account, Call, Collector, Sweep
from gateway.upstream.names import Resolver

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def status_of(early: list[Step], tls: bool) -> int:
    """What a call gets on a connection on which the provider spoke, or left, before the request was written."""
    async with ScriptedUpstream(on_accept=early, tls="good" if tls else None) as upstream:
        account = Account({}, Resolver(), certificates().ca_file)
        endpoint = account.endpoint(f"{upstream.url}/v1")
        connection = await endpoint.connect(2.0)
        await asyncio.sleep(0.05)  # what the provider did at once arrives here
        deadline = asyncio.get_running_loop().time() + 5
        call = Call(endpoint, Limits(), Sweep(), deadline, lambda call: Collector(call.ready, 1000))
        async with asyncio.timeout(3):
            connection.send(endpoint.head(f"{upstream.url}/v1", "POST", {}, 2), b"{}", call)
            await call.ready
        return call.status


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_an_answer_that_came_before_the_request_was_written_is_its_answer(run: Run, tls: bool) -> None:
    assert run(status_of([{"t": "{{OK}}"}], tls)) == 200
    assert run(status_of([{"t": "{{OK}}"}, {"fin": True}], tls)) == 200


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("end", ["fin", "rst"])
def test_a_connection_that_ended_before_the_request_was_written_is_a_reset_at_once(
    run: Run, tls: bool, end: str
) -> None:
    with pytest.raises(UpstreamReset):
        run(status_of([{end: True}], tls))

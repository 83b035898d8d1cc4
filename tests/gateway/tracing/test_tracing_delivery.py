"""What is sent of a batch of finished requests, to a collector that takes everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from collector import collector

from gateway.log import Record
from gateway.tracing.context import Parent
from gateway.tracing.trace import Trace

PARENT = Parent("a" * 32, "b" * 16, 1)


def test_a_request_of_which_no_span_can_be_made_takes_no_other_along(run: Callable[..., Any]) -> None:
    delivery = pytest.importorskip("gateway.tracing.delivery")
    odd, good = (Trace(PARENT, 1.0, content=True) for _ in range(2))
    odd.span = "no number"
    for each in (odd, good):
        each.end("ok", "/v1/models")
    record = Record(0.0, method="GET", path="/v1/models", status=200)

    async def main() -> None:
        async with collector() as taken:
            sending = delivery.Delivery(taken.url)
            assert await asyncio.to_thread(sending.spans, [(odd, record), (good, record)])
            assert sending.skipped == 1
            assert [span.id for span in taken.spans] == [good.span]
            sending.close()

    run(main())

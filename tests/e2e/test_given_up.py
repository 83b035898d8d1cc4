"""What a client that goes away, or never reads, leaves with the gateway: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from livegateway import gateway_and_demo

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_chunked_body_that_is_given_up_frees_what_it_had_of_the_ledger(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path) as (live, _):
            _, writer = await asyncio.open_connection("127.0.0.1", live.port)
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{live.port}\r\n"
            kind = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(f"{head}{kind}3e8\r\n".encode() + b"x" * 1000)
            while await held(live.admin_port) != 1000:
                pass
            writer.transport.abort()
            async with asyncio.timeout(5):
                while await held(live.admin_port):
                    pass

    run(main())


async def held(admin_port: int) -> float:
    """The bytes of request bodies in memory, as the admin listener tells."""
    reader, writer = await asyncio.open_connection("127.0.0.1", admin_port)
    writer.write(f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{admin_port}\r\nConnection: close\r\n\r\n".encode())
    page = (await reader.read()).decode()
    writer.close()
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith("sluiceway_body_bytes_held "))

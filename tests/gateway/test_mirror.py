"""gateway.mirror: a copy of requests goes elsewhere, and clients notice nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.mirror import MOST
from tests.gateway.attempting import DOWN, OK, STALL, STREAM, Run, before, health


def mirrored(share: str = "100%") -> dict[str, Any]:
    return {"r": {"targets": ["a"], "mirror": {"to": "b", "share": share}}}


@pytest.mark.parametrize("stream", [False, True])
def test_a_mirror_gets_the_same_request_and_a_line_of_its_own(run: Run, tmp_path: Path, *, stream: bool) -> None:
    async def main() -> None:
        script = STREAM if stream else OK
        async with before(tmp_path, script, script, routings=mirrored()) as (live, ups):
            reply = await live.chat("r", stream=stream)
            assert reply.headers["x-gateway-attempts"] == "a=200"
            own, copy = sorted(await live.logged(2), key=lambda line: "mirror" in line)
            assert (own["model"], own["deployment"], own["id"]) == ("r", "a", reply.headers["x-request-id"])
            assert (copy["mirror"], copy["model"], copy["deployment"]) == (True, "b", "b")
            assert (copy["id"], copy["status"], copy["stream"]) == (f"{own['id']}-mirror", 200, stream)
            assert copy["bytes_out"] > 0
            bodies = [up.requests[0].partition(b"\r\n\r\n")[2] for up in ups]
            assert bodies[0].replace(b"real-a", b"real-b") == bodies[1]
            assert [health(live, name).active for name in "ab"] == [0, 0]

    run(main())


def test_a_mirror_that_hangs_or_fails_is_nothing_to_the_client(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with before(tmp_path, OK, STALL, routings=mirrored()) as (live, ups):
            assert (await live.chat("r")).status == 200
            await ups[1].request_count(1)
            ups[1].scripts = [STALL, DOWN]
            assert (await live.chat("r")).status == 200
            (copy,) = await live.logged(1, mirror=True)
            assert (copy["status"], copy["attempts"], copy["code"]) == (503, "b=503", "overloaded")

    run(main())


def test_a_share_of_the_requests_is_mirrored_and_only_so_many_at_once(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with before(tmp_path, OK, STALL, routings=mirrored("0%")) as (live, ups):
            for _ in range(5):
                await live.chat("r")
            assert ups[1].requests == []
        async with before(tmp_path, OK, STALL, routings=mirrored()) as (live, ups):
            for _ in range(MOST + 3):
                assert (await live.chat("r")).status == 200
            await ups[1].request_count(MOST)
            mirrors = live.app.proxy.mirrors
            assert (len(mirrors), mirrors.skipped) == (MOST, 3)
            mirrors.close()
            lines = await live.logged(MOST, mirror=True)
            assert {line["code"] for line in lines} == {"shutting_down"}
            assert len(mirrors) == 0

    run(main())

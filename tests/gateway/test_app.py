"""gateway.app: what keeps a process from serving is said in one sentence."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livegateway import command, document, free_port, serving

from gateway.app import CannotServe, check_parser

Run = Callable[[Any], Any]


def refused(run: Run, folder: Path, content: dict[str, Any]) -> str:
    """Why the gateway does not start."""

    async def main() -> None:
        async with serving(folder, content):
            raise AssertionError("it has started")

    with pytest.raises(CannotServe) as raised:
        run(main())
    return str(raised.value)


def test_the_demos_port_may_be_taken(run: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        why = refused(run, tmp_path, {"server": {"demo": f"127.0.0.1:{port}"}})
    assert why == f"cannot listen on 127.0.0.1:{port}: address already in use"


def test_the_demo_is_served_beside_the_gateway(run: Run, tmp_path: Path) -> None:
    port = free_port()
    account = {"type": "openai", "base_url": f"http://127.0.0.1:{port}/openai/v1", "api_key": "demo"}
    content = {
        "server": {"demo": f"127.0.0.1:{port}"},
        "providers": {"p": account},
        "deployments": {"m": {"provider": "p", "model": "gpt-4o-mini"}},
    }

    async def main() -> str:
        async with serving(tmp_path, content) as live:
            return (await live.chat("m")).text()

    assert "Hello!" in run(main())


def test_listeners_are_closed_when_the_gateway_has_gone(run: Run, tmp_path: Path) -> None:
    async def main() -> tuple[int, int]:
        async with serving(tmp_path, {}) as live:
            return live.port, live.admin_port

    for port in run(main()):
        with socket.socket() as one:
            assert one.connect_ex(("127.0.0.1", port)) != 0


def test_a_gateway_may_be_started_again_in_the_same_process(run: Run, tmp_path: Path) -> None:
    async def main() -> list[int]:
        found = []
        for _ in range(3):
            async with serving(tmp_path, {}) as live:
                found.append((await live.get("/v1/models")).status)
        return found

    assert run(main()) == [200, 200, 200]


def test_the_pure_python_parser_is_not_served_with(tmp_path: Path) -> None:
    check_parser()
    whole, _ = document(tmp_path, {})
    (tmp_path / "gateway.yaml").write_text(json.dumps(whole))
    done = command("serve", "-c", str(tmp_path / "gateway.yaml"), env={"AIOHTTP_NO_EXTENSIONS": "1"})
    assert done.returncode == 1
    assert "without its C parser" in done.stderr


def test_a_file_with_nothing_but_its_version_serves_nobody_but_answers(run: Run, tmp_path: Path) -> None:
    async def main() -> Any:
        async with serving(tmp_path, {}) as live:
            return (await live.get("/v1/models")).json(), (await live.chat("any")).status

    assert run(main()) == ({"object": "list", "data": []}, 404)

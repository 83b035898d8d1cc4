"""Listening sockets: where they open, whom they refuse, what they leave behind."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from gateway.config.types import Address
from gateway.listeners import CannotServe, Opened, Rights, open_sockets


def close(opened: Opened) -> None:
    for each in opened.sockets:
        each.close()


def test_port_0_becomes_a_real_port() -> None:
    opened = open_sockets(Address("127.0.0.1", 0), {})
    assert opened.address.port > 0
    assert opened.exposed == ""
    close(opened)


def test_a_name_has_a_socket_for_each_of_its_addresses() -> None:
    opened = open_sockets(Address("localhost", 0), {})
    wanted = {info[4][0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    assert {each.getsockname()[0] for each in opened.sockets} == wanted
    close(opened)


def test_an_address_in_use_is_named() -> None:
    first = open_sockets(Address("127.0.0.1", 0), {})
    with pytest.raises(CannotServe, match=rf"cannot listen on {first.address}: address already in use"):
        open_sockets(first.address, {})
    close(first)


def test_shared_sockets_have_one_address() -> None:
    first = open_sockets(Address("127.0.0.1", 0), {}, shared=True)
    second = open_sockets(first.address, {}, shared=True)
    assert first.address == second.address
    close(first)
    close(second)


def test_what_others_may_reach_is_told() -> None:
    opened = open_sockets(Address("0.0.0.0", 0), {})
    assert opened.exposed == f"0.0.0.0:{opened.address.port}"
    close(opened)


def test_a_host_that_does_not_resolve_is_named() -> None:
    with pytest.raises(CannotServe, match=r"cannot listen on nowhere\.invalid:80"):
        open_sockets(Address("nowhere.invalid", 80), {})


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_unix_socket_has_the_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "s"
    before = os.umask(0o077)
    opened = open_sockets(Address(path=str(path)), {}, rights=Rights(mode))
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert os.umask(before) == 0o077
    assert (str(opened.address), opened.exposed) == (f"unix:{path}", "")
    opened.remove_path()
    assert not path.exists()
    close(opened)


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "s"))
    close(open_sockets(address, {}))
    opened = open_sockets(address, {})
    with pytest.raises(CannotServe, match="address already in use"):
        open_sockets(address, {})
    close(opened)


def test_a_path_that_was_taken_over_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = open_sockets(Address(path=str(path)), {})
    keep = os.link(path, tmp_path / "kept")  # holds the inode, whose number could be given out again
    assert keep is None
    path.unlink()
    second = open_sockets(Address(path=str(path)), {})
    first.remove_path()
    assert path.exists()
    close(first)
    close(second)


def test_a_path_that_is_too_long_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(CannotServe, match="too long"):
        open_sockets(Address(path=str(tmp_path / ("x" * 200))), {})


def test_a_passed_socket_must_listen() -> None:
    with socket.socket() as idle, pytest.raises(CannotServe, match="no listening stream socket"):
        open_sockets(Address(fd="http"), {"http": [idle]})
    with pytest.raises(CannotServe, match=r"passed: none"):
        open_sockets(Address(fd="http"), {})


def test_a_passed_unix_socket_has_a_path_that_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    opened = open_sockets(Address(fd="http"), {"http": [made]})
    assert opened.address == Address(path=str(path))
    opened.remove_path()
    assert path.exists()
    close(opened)


def test_a_unix_socket_belongs_to_whom_the_rights_say(tmp_path: Path) -> None:
    path = tmp_path / "s"
    own = Rights(0o600, str(os.getuid()), str(os.getgid()))
    close(open_sockets(Address(path=str(path)), {}, rights=own))
    assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())
    if os.getuid() == 0:
        close(open_sockets(Address(path=str(path)), {}, rights=Rights(0o660, "12345", "54321")))
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_an_owner_that_cannot_be_given_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(CannotServe, match=f"cannot listen on unix:{path}: there is no group nobody-of-that-name"):
        open_sockets(Address(path=str(path)), {}, rights=Rights(group="nobody-of-that-name"))
    assert not path.exists()

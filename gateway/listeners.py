"""Listening sockets: opened at an address, as a Unix socket, or taken from systemd; and served."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from gateway.config.types import Address, Server

BACKLOG = 4096
PROBE = 1.0

Passed = Mapping[str, Sequence[socket.socket]]


class CannotServe(Exception):
    """The process cannot start; the message says why."""


@dataclass(frozen=True, slots=True)
class Rights:
    """Who may connect to a Unix socket: its mode, and the user and group (names or numbers) that own it."""

    mode: int = 0o660
    owner: str | None = None
    group: str | None = None

    @classmethod
    def of(cls, server: Server) -> Rights:
        """What the configuration says."""
        return cls(server.unix_mode, server.unix_owner, server.unix_group)

    def give(self, path: str) -> None:
        """Give them to the file at the path; raises CannotServe."""
        for kind, name in (("user", self.owner), ("group", self.group)):
            if name is None:
                continue
            try:
                found: int | str = int(name) if name.isdecimal() else name
                shutil.chown(path, **{kind: found})
            except LookupError as error:
                raise CannotServe(f"cannot listen on unix:{path}: there is no {kind} {name}") from error
            except OSError as error:
                why = os.strerror(error.errno or 0).lower()
                raise CannotServe(f"cannot give unix:{path} to {kind} {name}: {why}") from error
        os.chmod(path, self.mode)


@dataclass(frozen=True, slots=True)
class Opened:
    """The listening sockets of one address: a name such as localhost has one for each of its addresses."""

    sockets: list[socket.socket]
    path: str = ""
    inode: int = 0

    @property
    def address(self) -> Address:
        """Where the first of them really is."""
        name = self.sockets[0].getsockname()
        if self.sockets[0].family == socket.AF_UNIX:
            return Address(path=os.fsdecode(name) or "unnamed")
        return Address(name[0], name[1])

    @property
    def exposed(self) -> str:
        """The first of them that other machines may reach; empty when there is none."""
        for each in self.sockets:
            if each.family != socket.AF_UNIX:
                host, port = each.getsockname()[:2]
                if not ip_address(host.partition("%")[0]).is_loopback:
                    return f"{host}:{port}"
        return ""

    def remove_path(self) -> None:
        """Remove the path that was made for a Unix socket, unless somebody else has taken it over."""
        with contextlib.suppress(OSError):
            if self.path and os.stat(self.path).st_ino == self.inode:
                os.unlink(self.path)


def open_sockets(address: Address, passed: Passed, *, rights: Rights = Rights(), shared: bool = False) -> Opened:
    """The sockets of an address, listening; a `shared` one may be opened once more by the same user.

    `passed` are those that systemd opened. Raises CannotServe.
    """
    if address.fd:
        return Opened(_passed(address.fd, passed))
    try:
        if address.path:
            return Opened([_unix(address.path, rights)], address.path, os.stat(address.path).st_ino)
        return Opened(_tcp(address.host, address.port, shared=shared))
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
        raise CannotServe(f"cannot listen on {address}: {reason}") from error


async def serve_on(opened: socket.socket, factory: Callable[[], asyncio.Protocol]) -> asyncio.AbstractServer:
    """Accept connections on a listening socket."""
    loop = asyncio.get_running_loop()
    if opened.family == socket.AF_UNIX and not isinstance(loop, asyncio.BaseEventLoop):
        return await loop.create_unix_server(factory, sock=opened, backlog=BACKLOG)
    # asyncio's own create_unix_server would remove the path when it closes, which is not ours if systemd made it.
    return await loop.create_server(factory, sock=opened, backlog=BACKLOG)


def _passed(name: str, passed: Passed) -> list[socket.socket]:
    found = list(passed.get(name, ()))
    if not found:
        known = ", ".join(sorted(passed)) or "none"
        raise CannotServe(f"cannot listen on fd:{name}: systemd passed no socket of that name (passed: {known})")
    for each in found:
        if each.type != socket.SOCK_STREAM or not each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise CannotServe(f"cannot listen on fd:{name}: it is no listening stream socket")
    return found


def _tcp(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    opened: list[socket.socket] = []
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, kind, protocol, _, place in dict.fromkeys(found):
            each = socket.socket(family, kind, protocol)
            opened.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind(place)
            each.listen(BACKLOG)
    except OSError:
        for each in opened:
            each.close()
        raise
    return opened


def _unix(path: str, rights: Rights) -> socket.socket:
    """A socket at a path; one that nobody listens on any more is replaced."""
    _remove_stale(path)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.bind(path)
        try:
            rights.give(path)
        except (OSError, CannotServe):
            os.unlink(path)
            raise
        # Nobody can connect before this, whatever the rights were between bind and chmod.
        opened.listen(BACKLOG)
    except (OSError, CannotServe):
        opened.close()
        raise
    return opened


def _remove_stale(path: str) -> None:
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise CannotServe(f"cannot listen on unix:{path}: there is a file that is no socket")
    if _answers(path):
        raise CannotServe(f"cannot listen on unix:{path}: address already in use")
    os.unlink(path)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        return True

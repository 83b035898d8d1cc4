"""Certificates for the front door, in files, and clients that speak TLS to it."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path
from typing import Any

import orjson
import trustme
from cryptography import x509
from livegateway import HELLO, Reply, Talk, request_bytes

PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
NAMES = ("localhost", "127.0.0.1", "::1")


class Papers:
    """An authority, and a certificate of the gateway in `folder`: cert.pem, key.pem and ca.pem."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.issue()

    def issue(self, authority: trustme.CA | None = None) -> int:
        """Write a fresh certificate and its key; returns its serial number."""
        made = (authority or self.authority).issue_cert(*NAMES)
        self._put("key.pem", made.private_key_pem.bytes())
        self._put("cert.pem", b"".join(blob.bytes() for blob in made.cert_chain_pems))
        return x509.load_pem_x509_certificate(made.cert_chain_pems[0].bytes()).serial_number

    def _put(self, name: str, content: bytes) -> None:
        fresh = self.folder / f"{name}.new"
        fresh.write_bytes(content)
        fresh.replace(self.folder / name)

    def tls(self, *, mutual: bool = False) -> dict[str, Any]:
        """What `server.tls` says."""
        files = {"cert": "cert.pem", "key": "key.pem", **({"client_ca": "ca.pem"} if mutual else {})}
        return {option: {"file": str(self.folder / name)} for option, name in files.items()}

    def client(self, certificate: bool | trustme.CA = False, *, expired: bool = False) -> ssl.SSLContext:
        """A client that trusts the authority; with a certificate of the authority, or of another one."""
        context = ssl.create_default_context(cadata=self.authority.cert_pem.bytes().decode())
        if certificate:
            authority = certificate if isinstance(certificate, trustme.CA) else self.authority
            issued = authority.issue_cert("app.example", not_after=PAST if expired else None)
            issued.configure_cert(context)
        return context


async def speak(place: int | Path, context: ssl.SSLContext, host: str = "127.0.0.1") -> Talk:
    """A TLS connection to a port, or to a Unix socket."""
    if isinstance(place, Path):
        return Talk(*await asyncio.open_unix_connection(str(place), ssl=context, server_hostname="localhost"))
    return Talk(*await asyncio.open_connection(host, place, ssl=context, server_hostname="localhost"))


def request(place: int | Path, model: str, key: str = "", **body: Any) -> bytes:
    """A chat request."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    raw = orjson.dumps({"model": model, "messages": HELLO, **body})
    return request_bytes(place if isinstance(place, int) else 0, "/v1/chat/completions", raw, headers)


async def ask(place: int | Path, context: ssl.SSLContext, model: str, key: str = "", **body: Any) -> Talk:
    """A chat request on a connection of its own; nothing is read yet."""
    talk = await speak(place, context)
    talk.writer.write(request(place, model, key, **body))
    return talk


async def chat(place: int | Path, context: ssl.SSLContext, model: str, key: str = "", **body: Any) -> Reply:
    """The whole answer to a chat request."""
    return await (await ask(place, context, model, key, **body)).rest()


def shown(talk: Talk) -> int:
    """The number of the certificate that the other side showed."""
    der: bytes = talk.writer.get_extra_info("ssl_object").getpeercert(True)
    return x509.load_der_x509_certificate(der).serial_number


async def plain(port: int, data: bytes) -> bytes:
    """What comes back for these bytes without TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()

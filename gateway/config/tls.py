"""Certificates of the front door: what is wrong with them, and the context that serves them."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import Callable, Iterator

from gateway.config.secrets import Pem
from gateway.config.types import Tls

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_ENCRYPTED = re.compile(r"ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED")


class Unusable(Exception):
    """The certificates cannot be served: which option is at fault (`cert`, `key`, `client_ca`), and why."""

    def __init__(self, option: str, why: str) -> None:
        super().__init__(why)
        self.option = option


class ServerContext(ssl.SSLContext):
    """A context whose failed handshakes bring along what is needed to answer them."""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """A connection whose `do_handshake` adds the last words for the peer to what it raises."""
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, _Connection)
        made.outgoing = outgoing
        return made


class _Connection(ssl.SSLObject):
    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        # Event loops drop the alert that tells the peer why: it is still in the buffer when the handshake fails.
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            if not isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
                error.alert = self.outgoing.read()  # type: ignore[attr-defined]  # read by `last_words`
            raise


def last_words(error: Exception) -> bytes:
    """What the peer of a failed handshake should still be sent."""
    alert: bytes = getattr(error, "alert", b"")
    return alert


def server_context(tls: Tls) -> ServerContext:
    """TLS 1.2 and 1.3 with these certificates, and no client without one if `client_ca` is set; raises Unusable."""
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _Connection
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    certificates = _certificates(tls.cert, "cert")
    _load(context, certificates, _private_key(tls.key))
    if tls.client_ca is not None:
        _trust(context, _certificates(tls.client_ca, "client_ca"), "client_ca")
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session is not verified again: a client whose certificate ran out could come back for two hours.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def problems(tls: Tls) -> Iterator[Unusable]:
    """Everything that keeps `server_context` from these certificates."""
    checks: list[Callable[[], object]] = [lambda: _certificates(tls.cert, "cert"), lambda: _private_key(tls.key)]
    pair = Tls(cert=tls.cert, key=tls.key)
    fits = True
    for check in checks:
        if problem := _problem(check):
            fits = False
            yield problem
    if fits and (problem := _problem(lambda: server_context(pair))):
        yield problem
    authorities = tls.client_ca
    if authorities and (problem := _problem(lambda: _certificates(authorities, "client_ca"))):
        yield problem


def _problem(check: Callable[[], object]) -> Unusable | None:
    try:
        check()
    except Unusable as problem:
        return problem
    return None


def _certificates(pem: Pem, option: str) -> str:
    found = _CERTIFICATE.findall(pem.content.reveal())
    if not found:
        raise Unusable(option, f"no certificate in PEM form: {pem.path}")
    text = "\n".join(found)
    # Read once as authorities, which tells a damaged certificate from a key that does not fit.
    _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), text, option)
    return text


def _private_key(pem: Pem) -> str:
    text = pem.content.reveal()
    if not _KEY.search(text):
        raise Unusable("key", f"no private key in PEM form: {pem.path}")
    if _ENCRYPTED.search(text):
        raise Unusable("key", f"the private key is encrypted, and nobody can be asked for its password: {pem.path}")
    return text


def _trust(context: ssl.SSLContext, text: str, option: str) -> None:
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, TypeError, ValueError) as error:  # the latter for what is no ASCII
        raise Unusable(option, f"a certificate cannot be read: {reason(error)}") from error


def _load(context: ssl.SSLContext, certificates: str, key: str) -> None:
    try:
        with _file(certificates) as cert_path, _file(key) as key_path:
            context.load_cert_chain(cert_path, key_path, password="")
    except ssl.SSLError as error:
        if "mismatch" in reason(error):
            raise Unusable("key", "the private key does not belong to the certificate") from error
        at_fault = "cert" if error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK") else "key"
        raise Unusable(at_fault, f"cannot be used: {reason(error)}") from error


@contextlib.contextmanager
def _file(text: str) -> Iterator[str]:
    """A path at which OpenSSL can read this text, which takes certificates from files only; in memory where it can."""
    memory = os.memfd_create("pem") if hasattr(os, "memfd_create") else None
    with os.fdopen(memory, "w+") if memory is not None else tempfile.TemporaryFile("w+") as file:
        file.write(text)
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def reason(error: Exception) -> str:
    """OpenSSL's reason in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    words = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    return words.lower().replace("_", " ") or "not in a form that OpenSSL knows"

"""server.tls: what `check` says of certificates, and what is watched."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from config_samples import BASE, PROVIDERS
from cryptography.hazmat.primitives import serialization
from papers import Papers

from gateway.config.loader import Loaded, load
from gateway.config.tls import server_context
from gateway.config.writer import values

LINE = "server: {tls: {cert: {file: cert.pem}, key: {file: key.pem}, client_ca: {file: ca.pem}}}\n"
CERT, KEY, CA = 22, 45, 73


def checked(folder: Path, text: str = LINE) -> Loaded:
    (folder / "g.yaml").write_text(BASE + text)
    return load(str(folder / "g.yaml"), {"OPENAI_API_KEY": "sk"}, PROVIDERS)


def told(folder: Path, text: str = LINE) -> list[str]:
    return [str(finding).replace(f"{folder}/", "") for finding in checked(folder, text).findings]


def line(column: int, option: str, message: str) -> str:
    return f"g.yaml:{BASE.count(chr(10)) + 1}:{column}: error: server.tls.{option}: {message}"


def test_good_certificates_are_taken_and_watched(tmp_path: Path) -> None:
    Papers(tmp_path)
    loaded = checked(tmp_path)
    assert loaded.findings == []
    assert {path.name for path in loaded.files} == {"g.yaml", "cert.pem", "key.pem", "ca.pem"}
    assert loaded.config
    assert loaded.config.server.tls
    assert "PRIVATE" not in repr(loaded.config)
    context = server_context(loaded.config.server.tls)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    papers.authority.issue_cert("x.example").private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    assert told(tmp_path) == [line(KEY, "key", "the private key does not belong to the certificate")]


def test_every_missing_file_is_told_in_one_pass(tmp_path: Path) -> None:
    assert told(tmp_path) == [
        line(CERT, "cert", "no file that can be read: cert.pem"),
        line(KEY, "key", "no file that can be read: key.pem"),
        line(CA, "client_ca", "no file that can be read: ca.pem"),
    ]


def test_files_that_hold_something_else_are_told_in_one_pass(tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    (tmp_path / "ca.pem").write_text("nothing\n")
    pair = (tmp_path / "cert.pem").read_bytes(), (tmp_path / "key.pem").read_bytes()
    (tmp_path / "key.pem").write_bytes(pair[0])
    (tmp_path / "cert.pem").write_bytes(pair[1])
    assert told(tmp_path) == [
        line(CERT, "cert", "no certificate in PEM form: cert.pem"),
        line(KEY, "key", "no private key in PEM form: key.pem"),
        line(CA, "client_ca", "no certificate in PEM form: ca.pem"),
    ]
    assert papers.folder == tmp_path


def test_damaged_blocks_are_told(tmp_path: Path) -> None:
    Papers(tmp_path)
    block = "-----BEGIN {0}-----\nTm90aGluZyBvZiB0aGUgc29ydA==\n-----END {0}-----\n"
    good = (tmp_path / "cert.pem").read_text()
    (tmp_path / "cert.pem").write_text(block.format("CERTIFICATE"))
    (finding,) = told(tmp_path)
    assert finding.startswith(line(CERT, "cert", "a certificate cannot be read"))
    (tmp_path / "cert.pem").write_text(good)
    (tmp_path / "key.pem").write_text(block.format("PRIVATE KEY"))
    (finding,) = told(tmp_path)
    assert finding.startswith(line(KEY, "key", "cannot be used"))


def test_a_block_with_letters_that_no_block_has_is_told(tmp_path: Path) -> None:
    Papers(tmp_path)
    for name in ("cert.pem", "ca.pem"):
        (tmp_path / name).write_text((tmp_path / name).read_text().replace("\n", "\nü", 1), "utf-8")
    assert [each.split(" (")[0] for each in told(tmp_path)] == [
        line(column, option, "a certificate cannot be read: not in a form that OpenSSL knows")
        for column, option in ((CERT, "cert"), (CA, "client_ca"))
    ]


def test_an_encrypted_key_is_told_and_nobody_is_asked_for_its_password(tmp_path: Path) -> None:
    Papers(tmp_path)
    key = serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    (tmp_path / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
    (finding,) = told(tmp_path)
    assert "the private key is encrypted" in finding


def test_one_file_may_hold_the_chain_and_the_key_with_comments_between(tmp_path: Path) -> None:
    middle = trustme.CA().create_child_ca()
    issued = middle.issue_cert("localhost")
    blobs = [blob.bytes() for blob in (*issued.cert_chain_pems, issued.private_key_pem)]
    (tmp_path / "all.pem").write_bytes(b"subject: M\xfcller\n".join(blobs))
    both = "server: {tls: {cert: {file: all.pem}, key: all.pem}}\n"
    assert told(tmp_path, both) == []


@pytest.mark.parametrize("reference", ["{env: X}", "[a]", "3", "null"])
def test_a_certificate_is_a_file(tmp_path: Path, reference: str) -> None:
    assert any(
        "server.tls.cert" in each for each in told(tmp_path, f"server: {{tls: {{cert: {reference}, key: a}}}}\n")
    )


@pytest.mark.parametrize(
    ("option", "name", "good"),
    [
        ("unix_owner", "root", True),
        ("unix_group", "root", True),
        ("unix_owner", "4711", True),
        ("unix_owner", "nobody-of-that-name", False),
        ("unix_group", "nobody-of-that-name", False),
    ],
)
def test_the_owner_of_a_unix_socket_exists(tmp_path: Path, option: str, name: str, good: bool) -> None:
    found = told(tmp_path, f'server: {{{option}: "{name}"}}\n')
    assert [each for each in found if f"server.{option}: this machine has no '{name}'" in each] == found
    assert (not found) == good


def test_a_shown_configuration_names_the_files_and_holds_no_key(tmp_path: Path) -> None:
    Papers(tmp_path)
    config = checked(tmp_path).config
    assert config
    assert values(config)["server"]["tls"] == {
        "cert": str(tmp_path / "cert.pem"),
        "key": str(tmp_path / "key.pem"),
        "client_ca": str(tmp_path / "ca.pem"),
    }

"""TLS at our own port, and a command line that knows whom it talks to."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from inferd.cli.data_dir import ServerFile
from inferd.cli.server_client import ServerClient
from inferd.errors import InferdError
from tests.gateway import echo_card
from tests.process import InferdProcess, serving
from tests.web import web


def write_certificate(folder: Path, name: str = "tls") -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "inferd.test")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    key_file.chmod(0o600)
    return certificate_file, key_file


def settings(certificate: Path, key: Path) -> dict[str, object]:
    return {"tls_certificate": certificate, "tls_key": key}


async def test_serves_with_tls_alone_and_the_command_line_follows(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    async with serving(folder, echo_card(), **settings(certificate, key)) as server:
        assert server.url.startswith("https://127.0.0.1:")
        trust = ssl.create_default_context(cafile=str(certificate))
        async with server.client(verify=trust) as client:
            body: dict[str, Any] = {
                "model": "test/echo",
                "messages": [{"role": "user", "content": "a b c"}],
                "stream": True,
            }
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.text.endswith("data: [DONE]\n\n")
            made = await client.post("/v1/admin/password", json={"login": "admin"})
            told = await client.post("/v1/sign-in", json=made.json())
            assert "Secure" in told.headers["set-cookie"].split("; ")
        async with httpx.AsyncClient() as plain:
            with pytest.raises(httpx.HTTPError):
                await plain.get(server.url.replace("https:", "http:") + "/health")
        code, output = await server.cli("token", "list")
        assert code == 0
        assert "bootstrap" in output
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        async with server.client(verify=old) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("/health")


async def test_a_picture_by_url_is_fetched_over_tls_too(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    painter = echo_card("test/painter", task="text-to-image")
    async with serving(folder, painter, **settings(certificate, key)) as server:
        trust = ssl.create_default_context(cafile=str(certificate))
        async with server.client(verify=trust) as client:
            body = {"model": painter.name, "prompt": "a", "size": "64x64", "response_format": "url"}
            answer = await client.post("/v1/images/generations", json=body)
            (one,) = answer.json()["data"]
            assert one["url"].startswith(f"{server.url}/v1/images/")
            assert (await client.get(one["url"])).content.startswith(b"\x89PNG")


async def test_the_command_line_tells_its_token_to_no_other_server(tmp_path: Path) -> None:
    """Another process takes the port that a killed server left."""
    certificate, key = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with web(context) as thief:
        url = f"https://127.0.0.1:{thief.port}"
        client = ServerClient(ServerFile(url, "the-secret", 1, "0" * 64))
        with pytest.raises(InferdError, match="Somebody else answers"):
            await asyncio.to_thread(client.call, "GET", "/v1/api-tokens")
        assert thief.heads == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
async def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    certificate, key = write_certificate(tmp_path)
    key.chmod(mode)
    await refused(tmp_path, settings(certificate, key), "can be read by others")


async def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    certificate, _ = write_certificate(tmp_path)
    _, other = write_certificate(tmp_path, "other")
    await refused(tmp_path, settings(certificate, other), "do not fit together")
    await refused(tmp_path, settings(tmp_path / "none.pem", other), "No such file")
    await refused(tmp_path, {"tls_certificate": certificate}, "belong together")


async def refused(tmp_path: Path, given: dict[str, object], sentence: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    server = InferdProcess(folder, **given)
    with pytest.raises(AssertionError) as told:
        await server.start()
    assert sentence in str(told.value)
    assert "Traceback" not in str(told.value)
    assert not (folder / "inferd.db").exists()


async def test_a_key_rotation_by_command_keeps_every_token(tmp_path: Path) -> None:
    server = InferdProcess(tmp_path)
    await server.start()
    async with server.client() as client:
        made = (await client.post("/v1/api-tokens", json={"name": "kept"})).json()["token"]
    code, output = await server.cli("keys", "rotate")
    assert code == 1
    assert "Another inferd" in output
    await server.stop()
    before = (tmp_path / "secret.key").read_bytes()
    code, output = await server.cli("keys", "rotate")
    assert (code, output) == (0, "2 tokens lie under the new key now.\n")
    assert (tmp_path / "secret.key").read_bytes() != before
    assert not (tmp_path / "secret.key.retired").exists()
    await server.start()
    try:
        async with server.client() as client:
            headers = {"authorization": f"Bearer {made}"}
            assert (await client.get("/v1/me", headers=headers)).status_code == 200
        code, output = await server.cli("audit", "--json", "--action", "installation.rotate-key")
        rows = msgspec.json.decode(output)["rows"]
        assert [row["detail"] for row in rows] == [{"moved": 2, "later": 0}]
    finally:
        await server.stop()

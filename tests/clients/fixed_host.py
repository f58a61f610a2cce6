"""A stand-in for https://api.deepinfra.com, for clients that take no other host.

A TLS door with a throwaway authority on a loopback address hands everything on to the server.
Clients run in a mount namespace of their own, in which /etc/hosts names that address.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import shlex
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.clients.support import package
from tests.process import TOKEN

HOST = "api.deepinfra.com"
ADDRESS, PORT = "127.83.7.1", 443
SECONDS_MAX = 100


class Unavailable(Exception):
    """This machine does not permit it; the text says what."""


def write_certificates(folder: Path) -> tuple[Path, Path]:
    """(authority, key and certificate for HOST), as PEM files."""
    serialization = package("cryptography.hazmat.primitives.serialization")
    x509 = package("cryptography.x509")
    ec = package("cryptography.hazmat.primitives.asymmetric.ec")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "inferd's tests")])
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    hosts = x509.SubjectAlternativeName([x509.DNSName(HOST)])
    ca = _signed(
        name, name, ca_key.public_key(), ca_key, x509.BasicConstraints(ca=True, path_length=None)
    )
    leaf_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    leaf = _signed(leaf_name, name, key.public_key(), ca_key, hosts)
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    authority, pair = folder / "ca.pem", folder / "pair.pem"
    authority.write_bytes(ca.public_bytes(pem))
    pair.write_bytes(secret + leaf.public_bytes(pem))
    return authority, pair


def _signed(subject: Any, issuer: Any, public_key: Any, ca_key: Any, extension: Any) -> Any:
    x509 = package("cryptography.x509")
    hashes = package("cryptography.hazmat.primitives.hashes")
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(public_key).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(hours=12))
    key_id = x509.SubjectKeyIdentifier.from_public_key(public_key)
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = builder.add_extension(key_id, critical=False)
    builder = builder.add_extension(issuer_id, critical=False)
    return builder.add_extension(extension, critical=False).sign(ca_key, hashes.SHA256())


@asynccontextmanager
async def tls_door(pair: Path, url: str) -> AsyncGenerator[None]:
    """Take off the TLS in front of the server at `url`. Raises Unavailable."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair)
    port = int(url.rpartition(":")[2])

    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))

    try:
        door = await asyncio.start_server(hand_on, ADDRESS, PORT, ssl=context)
    except OSError as error:
        raise Unavailable(f"port {PORT} cannot be listened on: {error}") from error
    async with door:
        yield


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


@asynccontextmanager
async def fake_hub(model: str) -> AsyncGenerator[str]:
    """Hugging Face's hub as far as its client asks it: which provider has `test/TASK`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        name = path.removeprefix("/api/models/").partition("?")[0]
        mapping = {"status": "live", "providerId": model, "task": name.removeprefix("test/")}
        body = {"id": name, "inferenceProviderMapping": {"deepinfra": mapping}}
        content = json.dumps(body).encode()
        head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
        writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        await writer.drain()
        writer.close()

    hub = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with hub:
        yield f"http://127.0.0.1:{hub.sockets[0].getsockname()[1]}"


async def in_namespace(folder: Path, *command: str, **environment: str) -> str:
    """What a command prints where HOST is ADDRESS. Raises Unavailable."""
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{ADDRESS} {HOST}\n")
    mount = f"mount --bind {shlex.quote(str(hosts))} /etc/hosts"
    probe = await _run(["unshare", "--mount", "sh", "-c", mount], {})
    if probe[0]:
        raise Unavailable(f"a private /etc/hosts cannot be mounted: {probe[2].strip()}")
    script = f"{mount} && exec {shlex.join(command)}"
    code, output, complaint = await _run(["unshare", "--mount", "sh", "-c", script], environment)
    assert code == 0, complaint
    return output


async def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | environment,
        )
    except FileNotFoundError:
        raise Unavailable("there is no unshare") from None
    output, complaint = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
    return process.returncode or 0, output.decode(), complaint.decode()


async def ask(folder: Path, url: str, model: str, script: Path) -> dict[str, Any]:
    """Run a client's script against the server at `url`; what it printed, as JSON."""
    authority, pair = write_certificates(folder)
    trust = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
    environment = {name: str(authority) for name in trust}
    async with tls_door(pair, url), fake_hub(model) as hub:
        environment |= {"DEEPINFRA_API_TOKEN": TOKEN, "DEEPINFRA_API_KEY": TOKEN}
        environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(folder)}
        command = (sys.executable, str(script), model)
        told: dict[str, Any] = json.loads(await in_namespace(folder, *command, **environment))
    return told

"""Stand-ins on this machine for the hub and for npm's registry: they speak the protocols."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = 1000
"""Files from this size on are kept by hash and served from elsewhere, after a redirect."""


class StandIn(ThreadingHTTPServer):
    """Paths → bytes, with what the two protocols need around them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        """Of the repository `owner/model`."""
        self.tarballs: dict[str, bytes] = {}
        """`name/version` → the package."""
        self.token: str | None = None
        self.lies = False
        """Serve other bytes than were stated."""
        self.cuts: list[int] = []
        self.seen: list[tuple[str, str | None, str | None]] = []
        """(path, range, authorization)."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def stand_in() -> Generator[StandIn]:
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tarball(members: Mapping[str, bytes], link: str | None = None) -> bytes:
    """A gzipped tar; `link` names one that is a symbolic link."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            if name == link:
                entry.type, entry.linkname, entry.size = tarfile.SYMTYPE, "/etc/passwd", 0
            archive.addfile(entry, io.BytesIO(content))
    return sink.getvalue()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server, path = cast("StandIn", self.server), self.path.partition("?")[0]
        server.seen.append((path, self.headers["range"], self.headers["authorization"]))
        if path.startswith("/large/"):
            self._file(server.files[path.removeprefix("/large/")])
        elif server.token and self.headers["authorization"] != f"Bearer {server.token}":
            self._reply(401, b"no")
        elif path.startswith("/api/models/owner/model/revision/"):
            self._revision(server)
        elif path.startswith(f"/owner/model/resolve/{COMMIT}/"):
            self._resolve(server, path.partition(f"{COMMIT}/")[2])
        elif path.startswith("/tarballs/"):
            self._file(server.tarballs[path.removeprefix("/tarballs/")])
        elif path.strip("/") in server.tarballs:
            url = f"{server.url}/tarballs{path}"
            self._reply(200, json.dumps({"name": "x", "dist": {"tarball": url}}).encode())
        else:
            self._reply(404, b"{}")

    def _revision(self, server: StandIn) -> None:
        siblings = [_sibling(name, content) for name, content in server.files.items()]
        self._reply(200, json.dumps({"sha": COMMIT, "siblings": siblings}).encode())

    def _resolve(self, server: StandIn, name: str) -> None:
        if len(server.files[name]) < LARGE_BYTES:
            self._file(server.files[name])
            return
        self._reply(302, b"", f"http://localhost:{server.server_port}/large/{name}")

    def _file(self, content: bytes) -> None:
        server = cast("StandIn", self.server)
        if server.lies:
            content = bytes(len(content))
        asked, start = self.headers["range"], 0
        if asked:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("content-range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        body = content[start:]
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(body)
        self.wfile.write(body[:cut])
        self.close_connection = cut < len(body)

    def _reply(self, status: int, body: bytes, location: str | None = None) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if location:
            self.send_header("location", location)
        self.end_headers()
        self.wfile.write(body)


def _sibling(name: str, content: bytes) -> dict[str, object]:
    size = len(content)
    # Git names a file by the sha1 of this header and its bytes.
    blob = hashlib.sha1(b"blob %d\0" % size + content, usedforsecurity=False).hexdigest()
    told: dict[str, object] = {"rfilename": name, "size": size, "blobId": blob}
    if size >= LARGE_BYTES:
        told["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": size}
    return told

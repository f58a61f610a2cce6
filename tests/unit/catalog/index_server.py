"""A package index and file server on this machine, made by tests, with knobs for trouble."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

from inferd.catalog.card import ModelCard, ModelFile, PackageSource, Wheel


class Ask:
    """One request that the server saw."""

    def __init__(self, path: str, byte_range: str | None, authorization: str | None) -> None:
        self.path = path
        self.byte_range = byte_range
        self.authorization = authorization


class IndexServer(ThreadingHTTPServer):
    """Serves `/simple/<project>/` and `/files/<name>`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.asks: list[Ask] = []
        self.sent_bytes = 0
        """Of files."""
        self.html = False
        self.states_hashes = True
        self.knows_ranges = True
        self.files_url = "../../files/"
        self.login: tuple[str, str] | None = None
        self.redirect_to: str | None = None
        self.cuts: list[int] = []
        """After how many bytes the next answers with files break off."""
        self.pause_after: int | None = None
        self.go_on = threading.Event()
        """With `pause_after`: a file stops there until this is set."""

    @property
    def url(self) -> str:
        """Of the index."""
        return f"http://127.0.0.1:{self.server_port}/simple"

    def file_asks(self) -> list[Ask]:
        """The requests for files."""
        return [ask for ask in self.asks if ask.path.startswith("/files/")]

    def add(self, project: str, content: bytes) -> Wheel:
        """Offer a wheel, version 1.0."""
        self.files[f"{project.replace('-', '_')}-1.0-py3-none-any.whl"] = content
        return Wheel(f"{project}==1.0", hashlib.sha256(content).hexdigest())


@contextmanager
def index_server() -> Generator[IndexServer]:
    """A server that runs."""
    server = IndexServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


def wheel_bytes(members: Mapping[str, bytes], link: str | None = None) -> bytes:
    """A zip with these members, stored; `link` names one that claims to be a symbolic link."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o120777 if name == link else 0o100644) << 16
            archive.writestr(entry, content)
    return out.getvalue()


def package_file(
    content: bytes, wheels: tuple[Wheel, ...], members: tuple[str, ...] = ("pkg/model.bin",)
) -> ModelFile:
    """A file that comes out of wheels."""
    return ModelFile(
        role="model",
        file_name="model.bin",
        source=PackageSource(wheels, members),
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
    )


def card_of(*files: ModelFile, name: str = "tests/model") -> ModelCard:
    """A card with these files."""
    return ModelCard(
        name=name,
        task="text-generation",
        engine="echo",
        context_length=64,
        licence="none",
        summary="For tests.",
        free=True,
        files=files,
    )


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server = cast("IndexServer", self.server)
        headers = self.headers
        server.asks.append(Ask(self.path, headers["range"], headers["authorization"]))
        if server.login and headers["authorization"] != _basic(server.login):
            self._reply(401, b"", {})
        elif server.redirect_to is not None and not self.path.startswith("/moved"):
            self._reply(302, b"", {"location": server.redirect_to + "/moved" + self.path})
        elif "/simple/" in self.path:
            self._page(server, self.path.split("/simple/")[1].strip("/"))
        else:
            self._file(server, self.path.rpartition("/")[2])

    def _page(self, server: IndexServer, project: str) -> None:
        names = [name for name in server.files if name.startswith(project.replace("-", "_"))]
        if not names:
            self._reply(404, b"", {})
        elif server.html:
            page = "".join(f'<a href="{_href(server, name)}">{name}</a>' for name in names)
            self._reply(200, page.encode(), {"content-type": "text/html; charset=utf-8"})
        else:
            files = [_entry(server, name) for name in names]
            kind = "application/vnd.pypi.simple.v1+json"
            self._reply(200, json.dumps({"files": files}).encode(), {"content-type": kind})

    def _file(self, server: IndexServer, name: str) -> None:
        content, start, status = server.files[name], 0, 200
        headers: dict[str, str] = {}
        asked = self.headers["range"]
        if asked and server.knows_ranges:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        self.send_response(status)
        for key, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(body)
        self._send(server, body[:cut])
        if cut < len(body):
            self.close_connection = True

    def _send(self, server: IndexServer, body: bytes) -> None:
        pause = server.pause_after
        if pause is not None and pause < len(body):
            self.wfile.write(body[:pause])
            self.wfile.flush()
            server.sent_bytes += pause
            server.go_on.wait()
            body = body[pause:]
        try:
            self.wfile.write(body)
            server.sent_bytes += len(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


def _basic(login: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()


def _digest(server: IndexServer, name: str) -> str:
    return hashlib.sha256(server.files[name]).hexdigest()


def _href(server: IndexServer, name: str) -> str:
    fragment = f"#sha256={_digest(server, name)}" if server.states_hashes else ""
    return f"{server.files_url}{name}{fragment}"


def _entry(server: IndexServer, name: str) -> dict[str, object]:
    hashes = {"sha256": _digest(server, name)} if server.states_hashes else {}
    size = {"size": len(server.files[name])} if server.states_hashes else {}
    return {"filename": name, "url": f"{server.files_url}{name}", "hashes": hashes, **size}

"""One HTTP request and its answer, over raw ASGI.

The exchange notices a client that leaves in every phase: once the body is read, a watcher waits
for the disconnect and cancels the endpoint, which then unwinds like any cancelled task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from inferd import ids
from inferd.access.caller import Caller
from inferd.access.in_flight_bytes import Holding
from inferd.admission.work import Work
from inferd.api.body import gunzip
from inferd.api.cut_texts import CutTexts, Raw
from inferd.api.errors import Shape
from inferd.api.fingerprint import fingerprint
from inferd.errors import (
    BadRequest,
    ClientGone,
    PayloadTooLarge,
    Unauthorized,
    UnsupportedMediaType,
)

# ASGI's own types are open mappings.
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = (b"content-type", b"application/json")
SLICE_BYTES = 256 * 1024
"""A long body goes out in such slices: one alone would be encrypted or copied in one go."""
LINGER_SECONDS = 2.0
LINGER_BYTES_MAX = 64 * 1024 * 1024
_ALWAYS = ((b"x-content-type-options", b"nosniff"),)


class Recording(Protocol):
    """Sees an answer before it is sent, and stores it before its last byte."""

    @property
    def paid(self) -> bool:
        """The call was billed before: computing it again costs nothing."""
        ...

    @property
    def before(self) -> str | None:
        """The request id under which a process that is dead had begun the call."""
        ...

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Status and headers."""
        ...

    def add(self, chunk: bytes) -> None:
        """A piece of the body."""
        ...

    async def keep(self, work: Work | None) -> None:
        """That was all of it."""
        ...

    async def close(self) -> None:
        """The call is over, with an end or without."""
        ...


class Admitted(Protocol):
    """Has work that was admitted when it was asked for."""

    work: Work | None


class Exchange:
    """A request being answered."""

    origin: str = ""
    """This gateway as the client sees it, such as `https://inferd.example`."""
    cut: CutTexts | None = None
    """Long base64 of its body."""
    fingerprint: bytes = b""
    """Of a request with an Idempotency-Key, once its body is read."""
    recorder: Recording | None = None
    """Stores the answer of a call with a key."""
    detached: Admitted | None = None
    """The call was answered `queued` before, and has no client: its answer goes to a webhook."""
    keeps_body = False
    """Its body may ask for a webhook."""
    kept: Raw = b""
    """Such a body as it came, until its endpoint has seen whether it does."""
    webhook: str = ""
    """Where the answer goes."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.request_id = ids.request_id()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.address = ""
        """The client's, read through trusted proxies alone; "" if it is not known."""
        self.secure: bool = scope.get("scheme") == "https"
        """It came over TLS that ends here."""
        self.always: tuple[tuple[bytes, bytes], ...] = ()
        """Headers of every answer to it."""
        self.shape: Shape = "native"
        self.route = "unknown"
        """The route's pattern, for logs and metrics."""
        self.rest = ""
        """What stood for `{rest}` in the route's pattern: a model name, an id."""
        self.work: Work | None = None
        self.status = 0
        """HTTP status sent; 0 while nothing was."""
        self.files: list[Path] = []
        """Private files of this request; deleted when it ends."""
        self.gone = False
        """The client has left."""
        self._caller: Caller | None = None
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None
        self._body_complete = False

    @property
    def caller(self) -> Caller:
        """Who asks. Unauthorized on a public route without a credential."""
        if self._caller is None:
            raise Unauthorized("Not authenticated.")
        return self._caller

    @caller.setter
    def caller(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def anonymous(self) -> bool:
        """True if no credential was shown (public routes only)."""
        return self._caller is None

    async def body(self, *, bytes_max: int, seconds_max: float, holding: Holding) -> bytes:
        """The body, unpacked, as bytes."""
        raw = await self.raw_body(bytes_max=bytes_max, seconds_max=seconds_max, holding=holding)
        return bytes(raw)

    async def raw_body(self, *, bytes_max: int, seconds_max: float, holding: Holding) -> Raw:
        """The body, unpacked. Caps hold before and after gunzip; `holding` counts its bytes."""
        encoding = self.headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b"gzip", b""):
            raise UnsupportedMediaType("Only gzip is accepted as a content encoding.")
        declared = self.headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > bytes_max:
            raise PayloadTooLarge(f"The body is over {bytes_max} bytes.")
        try:
            async with asyncio.timeout(seconds_max):
                raw = await self._read(bytes_max, holding)
        except TimeoutError:
            raise BadRequest(f"The body did not arrive within {seconds_max:g} seconds.") from None
        if encoding == b"gzip":
            raw = await asyncio.to_thread(gunzip, raw, bytes_max=bytes_max)
            holding.grow_to(len(raw))
        if self.keeps_body:
            self.kept = raw
        if b"idempotency-key" in self.headers:
            asked = f"{self.method} {self.path}?{self.query.decode('latin-1')}"
            kind = self.headers.get(b"content-type", b"")
            self.fingerprint = await fingerprint(asked, kind, raw)
        return raw

    async def _read(self, bytes_max: int, holding: Holding) -> Raw:
        first, rest = b"", bytearray()
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ClientGone("The client left while it sent its body.")
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > bytes_max:
                raise PayloadTooLarge(f"The body is over {bytes_max} bytes.")
            holding.grow_to(size)
            if not first:
                first = chunk
            elif chunk:
                # One growing block goes back to the system whole; a hundred pieces stay.
                rest += chunk if rest else first + chunk
            more = message.get("more_body", False)
        self._body_complete = True
        return rest or first

    def watch(self) -> None:
        """From here on, a client that leaves cancels the task that calls this."""
        task = asyncio.current_task()
        assert task is not None, "watch() is called from within the request's task"
        # Held by the exchange, cancelled in `close`.
        self._watcher = asyncio.create_task(self._wait_gone(task))  # noqa: TID251

    async def _wait_gone(self, task: asyncio.Task[Any]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self.recorder is None:
            self.leave(task)
        else:
            # He may come back for the answer.
            self.gone = True

    def leave(self, task: asyncio.Task[Any]) -> None:
        """Treat the client as gone: it closed, or it has stopped reading."""
        if not self.gone:
            self.gone = True
            task.cancel()

    def close(self) -> None:
        """Stop watching, and let go of what is left of the body."""
        self.kept = b""
        if self.cut is not None:
            self.cut.close()
            self.cut = None
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send status and headers."""
        self.status = status
        if self.recorder is not None:
            self.recorder.begin(status, headers)
        own = [(b"x-request-id", self.request_id.encode())]
        if self.shape == "anthropic":
            # The name that Anthropic's clients read.
            own.append((b"request-id", self.request_id.encode()))
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, *own, *self.always, *_ALWAYS],
            }
        )

    async def write(self, chunk: bytes) -> None:
        """Send a piece of the body. Waits while the client does not read."""
        if self.recorder is not None:
            self.recorder.add(chunk)
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, chunk: bytes = b"") -> None:
        """Send the last piece."""
        if self.recorder is not None:
            self.recorder.add(chunk)
            await self.recorder.keep(self.work)
        # Servers report a complete answer as a disconnect; that is not a client that left.
        self.close()
        await self._send({"type": "http.response.body", "body": chunk, "more_body": False})

    async def respond(
        self, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Send a whole JSON answer."""
        length = (b"content-length", b"%d" % len(body))
        extra = headers or []
        named = any(name == b"content-type" for name, _ in extra)
        close = [] if self._body_complete or self.method in ("GET", "HEAD") else _closing(self)
        await self.start(status, [*([] if named else [JSON]), length, *extra, *close])
        if close:
            await self.write(body)
            await self._linger()
            body = b""
        last = max(0, len(body) - 1) // SLICE_BYTES * SLICE_BYTES
        for at in range(0, last, SLICE_BYTES):
            await self.write(body[at : at + SLICE_BYTES])
            await asyncio.sleep(0)
        await self.end(body[last:] if last else body)

    async def _linger(self) -> None:
        """Read on for a moment: closing on unread bytes would destroy the answer on its way."""
        size, more = 0, True
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while more and size < LINGER_BYTES_MAX:
                    message = await self._receive()
                    more = message["type"] == "http.request" and message.get("more_body", False)
                    size += len(message.get("body", b""))


def _closing(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    """An unread body would be read as the next request: close instead, when there is one."""
    has_body = (
        exchange.headers.get(b"content-length", b"0") != b"0"
        or b"transfer-encoding" in exchange.headers
    )
    return [(b"connection", b"close")] if has_body else []

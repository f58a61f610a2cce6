"""uvicorn's HTTP protocol with three repairs that a server of long answers needs.

1. A client that pipelines a second request and then leaves is noticed: uvicorn stops reading
   then and forgets the running request, so the peer's state is polled while anything is pipelined.
2. Headers are capped in size and in time (slow-header attacks).
3. TCP_NODELAY is set: a token must not wait for the next one.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADER_BYTES_MAX = 64 * 1024
HEADER_SECONDS_MAX = 20
PIPELINE_POLL_SECONDS = 0.1
PIPELINED_MAX = 16
_TCP_CLOSED_STATES = frozenset({4, 5, 6, 7, 8, 9, 11})
"""FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING (linux/tcp_states.h)."""


class PatientProtocol(HttpToolsProtocol):
    """One connection."""

    _active: RequestResponseCycle | None = None
    _header_bytes = 0
    _poll: asyncio.TimerHandle | None = None
    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        peer: socket.socket | None = transport.get_extra_info("socket")
        if peer is not None and peer.family in (socket.AF_INET, socket.AF_INET6):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over: every request on it is told, not only the newest."""
        self._stop_timers()
        self._tell_gone()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        super().data_received(data)
        self._header_bytes += len(data)
        too_large = self._header_timer is not None and self._header_bytes > HEADER_BYTES_MAX
        if too_large and not self.transport.is_closing():
            self.send_400_response("Request headers are too large.")

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        if self._header_timer is None:
            self._expect_headers()

    def on_headers_complete(self) -> None:
        """Headers are whole: the request starts, or waits behind the one that runs."""
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        super().on_headers_complete()
        if self.pipeline and self._poll is None:
            self._poll = self.loop.call_later(PIPELINE_POLL_SECONDS, self._check_peer)
        if len(self.pipeline) > PIPELINED_MAX:
            self.transport.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """An answer is out; the next request may begin."""
        super().on_response_complete()
        self._header_bytes = 0

    def _expect_headers(self) -> None:
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(HEADER_SECONDS_MAX, self._headers_late)

    def _headers_late(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _check_peer(self) -> None:
        self._poll = None
        if self.transport.is_closing():
            return
        if _peer_has_left(self.transport.get_extra_info("socket")):
            self.transport.abort()
        elif self.pipeline:
            self._poll = self.loop.call_later(PIPELINE_POLL_SECONDS, self._check_peer)

    def _tell_gone(self) -> None:
        for cycle in (self._active, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _stop_timers(self) -> None:
        for timer in (self._poll, self._header_timer):
            if timer is not None:
                timer.cancel()
        self._poll = self._header_timer = None


def _peer_has_left(peer: socket.socket | None) -> bool:
    """True if the client sent FIN or RST, though unread bytes may still wait before it."""
    if peer is None or not hasattr(socket, "TCP_INFO"):
        return False
    state: int = struct.unpack("B", peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))[0]
    return state in _TCP_CLOSED_STATES

"""A mock OpenAI-compatible server: answers at once, from bytes made beforehand.

`python upstream.py PORT`. Plain: one completion of about 400 bytes. Streamed: `max_tokens` chunks
(8 by default) in one write each, or, with `X-Pace: MS`, one every MS milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys

import uvloop

MODEL = "bench/mock"
_BODY = json.dumps(
    {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word " * 24},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 24, "total_tokens": 36},
    }
).encode()
PLAIN = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY)
) + _BODY
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _event(payload: object) -> bytes:
    data = b"data: " + json.dumps(payload).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def _chunk(delta: dict[str, str], reason: str | None) -> dict[str, object]:
    return {
        "id": "chatcmpl-mock",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }


TOKEN = _event(_chunk({"content": "word "}, None))


def _ending(count: int) -> bytes:
    usage = {"prompt_tokens": 12, "completion_tokens": count, "total_tokens": 12 + count}
    last = _chunk({}, "stop")
    return (
        _event(last)
        + _event({**last, "choices": [], "usage": usage})
        + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    )


class Upstream(asyncio.Protocol):
    """One connection; requests are answered in order."""

    def __init__(self) -> None:
        self._pending = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            head = self._pending[:end].lower()
            found = re.search(rb"content-length: (\d+)", head)
            total = end + 4 + (int(found[1]) if found else 0)
            if len(self._pending) < total:
                return
            body, self._pending = self._pending[end + 4 : total], self._pending[total:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if not re.search(rb'"stream": ?true', body):
            self._transport.write(PLAIN)
            return
        found = re.search(rb'"max_tokens": ?(\d+)', body)
        count = int(found[1]) if found else 8
        pace = re.search(rb"pace-(\d+)", body)
        if pace is None:
            self._transport.write(_HEAD + TOKEN * count + _ending(count))
            return
        task = asyncio.get_running_loop().create_task(self._drip(count, int(pace[1]) / 1000))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drip(self, count: int, seconds: float) -> None:
        self._transport.write(_HEAD)
        for _ in range(count):
            await asyncio.sleep(seconds)
            self._transport.write(TOKEN)
        self._transport.write(_ending(count))


async def main(port: int) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))

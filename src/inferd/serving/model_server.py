"""A replica that is somebody else's server: any OpenAI-compatible URL (vLLM, SGLang, a provider).

Always streamed, so that a cancel closes the connection and the last usage seen can be billed. Only
allow-listed fields travel. Where the server gives no usage, chunks are counted as tokens and four
prompt bytes as one, and the entry is flagged as estimated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec

from inferd.catalog.card import ModelCard
from inferd.engines.base import Request
from inferd.errors import (
    BadRequest,
    ContextLengthExceeded,
    InferdError,
    TooManyRequests,
    Unavailable,
    UpstreamFailed,
)
from inferd.serving.model_server_body import request_body
from inferd.serving.model_server_stream import ErrorIn, SseLines
from inferd.serving.model_server_tally import Tally
from inferd.serving.replica import Flight, ReplicaFacts
from inferd.serving.upstream_http import UpstreamAnswer, UpstreamClient, UpstreamError
from inferd.tasks.every import Event
from inferd.tasks.text_generation import ChatPrompt, TextGenerationRequest

SILENCE_SECONDS_MAX = 600
"""A server that loads a model or prefills a long prompt may say nothing for minutes."""
ERROR_BYTES_MAX = 64 * 1024
MESSAGE_CHARACTERS_MAX = 500
_encode = msgspec.json.Encoder().encode
_ERROR = msgspec.json.Decoder(ErrorIn)


class ModelServerReplica:
    """One URL."""

    def __init__(self, card: ModelCard) -> None:
        assert card.model_server is not None, "the card names a model server"
        self._card = card
        self._server = card.model_server
        self._died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._client: UpstreamClient | None = None
        self._key: str | None = None

    @property
    def died(self) -> asyncio.Future[str]:
        """Never resolves: a server that is away answers each request with its own error."""
        return self._died

    def progress(self) -> str:
        """Nothing to wait for."""
        return f"Connecting to the server of {self._card.name}"

    async def start(self) -> ReplicaFacts:
        """Read the key and make the connection pool. The server is not asked anything yet."""
        if self._server.api_key_file is not None:
            self._key = await asyncio.to_thread(_read_key, Path(self._server.api_key_file))
        headers = {"content-type": "application/json"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        self._client = await asyncio.to_thread(
            UpstreamClient, self._server.url, headers, silence_seconds=SILENCE_SECONDS_MAX
        )
        slots = self._server.slots
        spare = 1 if slots > 1 else 0
        return ReplicaFacts(slots, self._card.context_length, memory_bytes=0, spare=spare)

    async def stop(self) -> None:
        """Close all connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def run(
        self,
        request_id: str,
        request: Request,
        flight: Flight,
    ) -> AsyncGenerator[Event]:
        """Relay. Closing the generator closes the connection."""
        if self._client is None:
            raise Unavailable("The connection to the model server is closed.")
        if not isinstance(request, TextGenerationRequest):
            raise BadRequest(f"The server of {self._card.name} shows no tokenizer.", param="model")
        body = _encode(request_body(self._server, self._card.name, request))
        path = "/chat/completions" if isinstance(request.prompt, ChatPrompt) else "/completions"
        try:
            async with self._client.post(path, body) as answer:
                if answer.status != 200:
                    raise await _refusal(answer)
                async for event in _relay(answer, request, flight):
                    yield event
        except UpstreamError as error:
            raise UpstreamFailed(
                f"The model server of {self._card.name} cannot be reached or broke off.",
                detail=str(error),
            ) from error


def _read_key(path: Path) -> str:
    try:
        return path.read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        # The path may itself be telling; the log has it.
        raise Unavailable(
            "The file with the model server's key cannot be read.", detail=str(path)
        ) from None


async def _relay(
    answer: UpstreamAnswer, request: TextGenerationRequest, flight: Flight
) -> AsyncGenerator[Event]:
    tally = Tally(request)
    lines = SseLines()
    flight.stage = "prefill"
    while (received := await answer.read()) is not None:
        chunks = lines.feed(received)
        ended = bool(chunks) and chunks[-1] is None
        events = tally.take([chunk for chunk in chunks if chunk is not None])
        flight.usage = tally.usage
        for event in events:
            flight.stage = "decode"
            yield event
        if ended:
            yield tally.done()
            return
    if not tally.finished:
        raise UpstreamFailed("The model server broke off in the middle of its answer.")
    yield tally.done()


async def _refusal(answer: UpstreamAnswer) -> InferdError:
    """What a status other than 200 means to our caller."""
    content = b""
    while len(content) < ERROR_BYTES_MAX and (more := await answer.read()) is not None:
        content += more
    try:
        told = _ERROR.decode(content)
    except msgspec.DecodeError:
        told = ErrorIn()
    sentence = told.sentence()[:MESSAGE_CHARACTERS_MAX]
    status = answer.status
    if status in (400, 413, 422):
        message = f"The model server refuses the request: {sentence or status}"
        is_context = told.code() == "context_length_exceeded" or "context length" in sentence
        return ContextLengthExceeded(message) if is_context else BadRequest(message)
    if status == 429:
        after = answer.headers.get(b"retry-after", b"")
        seconds = float(after) if after.isdigit() else 1.0
        return TooManyRequests("Model busy, retry later.", retry_after_seconds=seconds)
    if status == 503:
        return Unavailable("The model server is not ready.", retry_after_seconds=5)
    return UpstreamFailed(f"The model server answered with status {status}.", detail=sentence)

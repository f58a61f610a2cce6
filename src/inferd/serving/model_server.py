"""A replica that is somebody else's server: any OpenAI-compatible URL (vLLM, SGLang, a provider).

Always streamed, so that a cancel closes the connection and the last usage seen can be billed. Only
allow-listed fields travel. Where the server gives no usage, chunks are counted as tokens and four
prompt bytes as one, and the entry is flagged as estimated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

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
from inferd.serving.model_server_stream import ChoiceIn, Chunk, ErrorIn, SseLines, UsageIn
from inferd.serving.replica import Flight, ReplicaFacts
from inferd.serving.upstream_http import UpstreamAnswer, UpstreamClient, UpstreamError
from inferd.tasks.base import Usage
from inferd.tasks.text_generation import (
    ChatPrompt,
    Done,
    Event,
    FinishReason,
    Sampling,
    Text,
    Token,
)

SILENCE_SECONDS_MAX = 600
"""A server that loads a model or prefills a long prompt may say nothing for minutes."""
ERROR_BYTES_MAX = 64 * 1024
MESSAGE_CHARACTERS_MAX = 500
PROMPT_BYTES_PER_TOKEN = 4
"""For estimates only; English text has 4 to 5 bytes for each token in common vocabularies."""

_DEFAULTS = Sampling()
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
        return ReplicaFacts(self._server.slots, self._card.context_length, memory_bytes=0)

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
        path = "/chat/completions" if isinstance(request.prompt, ChatPrompt) else "/completions"
        try:
            async with self._client.post(path, self._body(request)) as answer:
                if answer.status != 200:
                    raise await _refusal(answer)
                async for event in _relay(answer, request, flight):
                    yield event
        except UpstreamError as error:
            raise UpstreamFailed(
                f"The model server of {self._card.name} cannot be reached or broke off.",
                detail=str(error),
            ) from error

    def _body(self, request: Request) -> bytes:
        options: dict[str, bool] = {"include_usage": True}
        if self._server.continuous_usage:
            options["continuous_usage_stats"] = True
        body: dict[str, Any] = {
            "model": self._server.model or self._card.name,
            "stream": True,
            "stream_options": options,
        }
        if isinstance(request.prompt, ChatPrompt):
            body["messages"] = request.prompt.messages
        else:
            body["prompt"] = request.prompt.text
        if request.max_tokens is not None:
            body["max_tokens"] = request.max_tokens
        if request.stop:
            body["stop"] = request.stop
        if request.n != 1:
            body["n"] = request.n
        for name in Sampling.__struct_fields__:
            value = getattr(request.sampling, name)
            if value != getattr(_DEFAULTS, name):
                body[name] = value
        return _encode(body)


def _read_key(path: Path) -> str:
    try:
        return path.read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        # The path may itself be telling; the log has it.
        raise Unavailable(
            "The file with the model server's key cannot be read.", detail=str(path)
        ) from None


async def _relay(answer: UpstreamAnswer, request: Request, flight: Flight) -> AsyncGenerator[Event]:
    tally = _Tally(request)
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


class _Tally:
    """Texts, reasons and usage of one answer."""

    def __init__(self, request: Request) -> None:
        self._reasons: list[FinishReason | None] = [None] * request.n
        self._stops = bool(request.stop)
        self._chunks = 0
        self._exact: UsageIn | None = None
        self._prompt_estimate = max(1, request.prompt_bytes() // PROMPT_BYTES_PER_TOKEN)

    @property
    def finished(self) -> bool:
        """Every choice has its finish reason."""
        return all(reason is not None for reason in self._reasons)

    @property
    def usage(self) -> Usage:
        """What the server said last, or an estimate."""
        exact = self._exact
        if exact is None:
            return Usage(self._prompt_estimate, 0, self._chunks, estimated=True)
        details = exact.prompt_tokens_details
        cached = 0 if details is None else details.cached_tokens or 0
        return Usage(exact.prompt_tokens, min(cached, exact.prompt_tokens), exact.completion_tokens)

    def take(self, chunks: list[Chunk]) -> list[Text]:
        """The events of chunks that came together, one for each choice.

        Raises what the server reports inside the stream.
        """
        texts: dict[int, list[str]] = {}
        for chunk in chunks:
            if chunk.error is not None or chunk.error_message is not None:
                raise UpstreamFailed("The model server failed in the middle of its answer.")
            if chunk.usage is not None:
                self._exact = chunk.usage
            for choice in chunk.choices:
                self._take_choice(choice, texts)
        return [
            Text(index, "".join(pieces), tuple(Token(None, piece) for piece in pieces), self.usage)
            for index, pieces in texts.items()
        ]

    def _take_choice(self, choice: ChoiceIn, texts: dict[int, list[str]]) -> None:
        if not 0 <= choice.index < len(self._reasons):
            raise UpstreamFailed("The model server answered with a choice that nobody asked for.")
        text = choice.text if choice.delta is None else choice.delta.content
        if text:
            self._chunks += 1
            texts.setdefault(choice.index, []).append(text)
        if choice.finish_reason is not None:
            self._reasons[choice.index] = self._reason(choice.finish_reason)

    def _reason(self, told: str) -> FinishReason:
        if told == "length":
            return "length"
        # The wire does not say whether a stop string or the model itself ended it.
        return "stop_sequence" if told == "stop_sequence" else "eos"

    def done(self) -> Done:
        """The end. A choice without a reason ended with the stream."""
        return Done(tuple(reason or "eos" for reason in self._reasons), self.usage)


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

"""POST /v1[/openai]/embeddings (deepinfra-api 4.5)."""

from __future__ import annotations

import array
import sys
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import inference, single
from inferd.api.body import check_media_type, decode
from inferd.api.cut_texts import Raw
from inferd.api.errors import stream_event
from inferd.api.exchange import Exchange
from inferd.api.instructions import INSTRUCTION_CHARACTERS_MAX, instruction_for
from inferd.api.openai.fields import TokenId
from inferd.api.services import Services
from inferd.api.slices import Body, LongJson
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest, ContextLengthExceeded, InferdError
from inferd.money import usd
from inferd.tasks.embeddings import (
    DIMENSIONS_MAX,
    DIMENSIONS_MIN,
    INPUTS_MAX,
    NUMBERS_MAX,
    Embedded,
    EmbeddingsRequest,
    InputType,
)
from inferd.tasks.every import Ending, Event


class InputPart(msgspec.Struct, frozen=True):
    """A part of one input, for models that embed more than text."""

    type: str = "text"
    text: str | None = None
    image_url: Any = None


Input = str | TokenId | Annotated[list[TokenId | InputPart], Meta(max_length=100_000)]

INPUT_TYPES: dict[str, InputType] = {
    "query": "query",
    "passage": "passage",
    "document": "passage",
}


class EmbeddingsIn(msgspec.Struct, frozen=True, kw_only=True):
    """The request body."""

    model: str
    input: str | list[Input]
    """A text, texts, token ids, or lists of token ids."""
    input_type: Literal["query", "passage", "document"] | None = None
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Annotated[int, Meta(ge=DIMENSIONS_MIN, le=DIMENSIONS_MAX)] | None = None
    instruction: Annotated[str, Meta(max_length=INSTRUCTION_CHARACTERS_MAX)] | None = None
    custom_instruction: Annotated[str, Meta(max_length=INSTRUCTION_CHARACTERS_MAX)] | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None
    service_tier: str | None = None
    fail_fast: bool | None = None


class EmbeddingsUsage(msgspec.Struct, frozen=True):
    """Tokens of all texts, and what they cost."""

    prompt_tokens: int
    total_tokens: int
    estimated_cost: float


class EmbeddingOut(msgspec.Struct, frozen=True):
    """One vector: numbers, or little-endian float32 in base64."""

    index: int
    embedding: Sequence[float] | str
    object: str = "embedding"


class EmbeddingsOut(msgspec.Struct, frozen=True):
    """The response body."""

    model: str
    usage: EmbeddingsUsage
    data: list[EmbeddingOut]
    object: str = "list"


_DECODER = msgspec.json.Decoder(EmbeddingsIn)
_encode = msgspec.json.Encoder().encode


async def embeddings(exchange: Exchange, services: Services) -> None:
    """Embed."""
    check_media_type(exchange.headers.get(b"content-type"))
    # With its texts: to look at millions of token ids takes seconds, which is for a thread.
    body, inputs = await inference.read_bytes(exchange, services, _decoded)
    card = inference.find_model(services, body.model, "embeddings")
    check_lengths(card, inputs, "input")
    check_numbers(len(inputs), body.dimensions)
    request = EmbeddingsRequest(
        model=card.name,
        inputs=inputs,
        dimensions=body.dimensions,
        input_type=INPUT_TYPES[body.input_type] if body.input_type else None,
        instruction=instruction_for(card, body.instruction, body.custom_instruction),
    )
    order = single.order(
        exchange,
        card,
        request,
        "openai",
        tier=body.service_tier,
        fail_fast=bool(body.fail_fast),
        end_user=body.user,
    )
    teller = _Teller(card.name, base64=body.encoding_format == "base64")
    await single.answer(exchange, services, order, teller)


def _decoded(raw: Raw) -> tuple[EmbeddingsIn, tuple[str | tuple[int, ...], ...]]:
    body = decode(raw, _DECODER)
    return body, texts(body.input, "input")


def check_lengths(card: ModelCard, inputs: Sequence[str | tuple[int, ...]], param: str) -> None:
    """Raise ContextLengthExceeded for token ids that are more than the model reads."""
    for index, one in enumerate(inputs):
        if isinstance(one, tuple) and 0 < card.context_length < len(one):
            raise ContextLengthExceeded(
                f"Text {index} has {len(one)} tokens; the model takes {card.context_length}.",
                param=param,
            )


def texts(
    given: str | Sequence[str | int | list[int | InputPart]], param: str
) -> tuple[str | tuple[int, ...], ...]:
    """One text, several, token ids, or several lists of them. Raises BadRequest."""
    if isinstance(given, str):
        given = [given]
    if set(map(type, given)) == {int}:
        return (tuple(one for one in given if isinstance(one, int)),)
    if not 1 <= len(given) <= INPUTS_MAX:
        raise BadRequest(f"{param} holds 1 to {INPUTS_MAX} texts.", param=param)
    return tuple(_text(one, f"{param}.{index}") for index, one in enumerate(given))


def _text(one: str | int | list[int | InputPart], at: str) -> str | tuple[int, ...]:
    if isinstance(one, str):
        if not one:
            raise BadRequest("A text must not be empty.", param=at)
        return one
    if isinstance(one, int) or not one:
        raise BadRequest("Texts and token ids do not mix, and none is empty.", param=at)
    if len(set(map(type, one))) > 1:
        raise BadRequest("Parts and token ids do not mix.", param=at)
    parts = [part for part in one if isinstance(part, InputPart)]
    if any(part.type != "text" for part in parts):
        raise BadRequest("This model embeds text only.", param=at)
    if parts:
        return "".join(part.text or "" for part in parts)
    return tuple(token for token in one if isinstance(token, int))


def check_numbers(count: int, dimensions: int | None) -> None:
    """Raise BadRequest for more numbers than one answer holds."""
    if dimensions is not None and count * dimensions > NUMBERS_MAX:
        raise BadRequest(
            f"{count} texts of {dimensions} dimensions are {count * dimensions} numbers; one "
            f"answer holds at most {NUMBERS_MAX}.",
            param="dimensions",
        )


def rows(embedded: Embedded) -> Iterator[bytes]:
    """The raw vectors, one after the other."""
    row = embedded.dimensions * 4
    for at in range(0, len(embedded.vectors), row):
        yield embedded.vectors[at : at + row]


def numbers(raw: bytes) -> list[float]:
    """A raw vector as numbers."""
    found = array.array("f", raw)
    if sys.byteorder == "big":
        found.byteswap()
    return found.tolist()


def listed(encoded: Iterator[bytes]) -> Iterator[bytes]:
    """A JSON array of items that are encoded one by one."""
    before = b"["
    for one in encoded:
        yield before + one
        before = b","
    yield b"[]" if before == b"[" else b"]"


class _Teller:
    """OpenAI's words."""

    def __init__(self, model: str, *, base64: bool) -> None:
        self._model = model
        self._base64 = base64

    def say(self, event: Event, work: Work) -> bytes:
        """Nothing before the end."""
        return b""

    def last(self, ending: Ending, work: Work) -> Body:
        """The whole body, vector by vector."""
        assert isinstance(ending, Embedded), "the task's ending"
        tokens = ending.usage.input_tokens
        usage = EmbeddingsUsage(tokens, tokens, usd(work.cost_nanos))
        long = LongJson()
        data = long.value(listed(self._encoded(ending)))
        return long.pieces(_encode(EmbeddingsOut(self._model, usage, data)))

    def _encoded(self, embedded: Embedded) -> Iterator[bytes]:
        for index, raw in enumerate(rows(embedded)):
            told = b64encode(raw).decode() if self._base64 else numbers(raw)
            yield _encode(EmbeddingOut(index, told))

    def failed(self, error: InferdError) -> bytes:
        """Never streamed."""
        return stream_event(error)

    def headers(self) -> single.Headers:
        """JSON."""
        return []

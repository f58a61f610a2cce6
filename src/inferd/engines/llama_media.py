"""Pictures, and films as pictures, on their way into llama.cpp.

The prompt is rendered by the model's own template with a secret mark in the place of each picture.
llama.cpp takes pictures in its chat call alone, so a server that sees is given a template which
repeats the one message that it is sent: the rendered prompt, cut at the marks.
"""

from __future__ import annotations

import base64
import io
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from inferd.errors import BadRequest
from inferd.tasks.text_generation import ChatPrompt, Message

if TYPE_CHECKING:
    from PIL.Image import Image

    from inferd.catalog.card import ModelCard
    from inferd.engines.llama_choice import Chunk, LlamaServer
    from inferd.tasks.media import Media

MARK = f"<inferd-media-{secrets.token_hex(16)}>"
"""Drawn anew in each process, so nobody can write it into a prompt."""
TEMPLATE = "{{ messages[0]['content'] }}"
PIXELS_MAX = 1_048_576
"""What a larger picture is shrunk to, unless the card's options say `image_pixels_max`."""
FILM_PIXELS_MAX = 262_144
FILM_SECONDS_MAX = 120.0


class Sight(NamedTuple):
    """How a model looks, from its card's options."""

    pixels_max: int
    """`image_pixels_max`."""
    frames: int
    """`video_frames`: as so many pictures a film is shown; 0: the model takes none."""
    frame_pixels_max: int
    """`video_pixels_max`: of each of them."""
    seconds_max: float
    """`media_seconds_max`: of a film."""

    @classmethod
    def of(cls, card: ModelCard) -> Sight:
        """That of a model."""
        options = card.options
        return cls(
            int(str(options.get("image_pixels_max", PIXELS_MAX))),
            int(str(options.get("video_frames", 0))) if "video" in card.modalities else 0,
            int(str(options.get("video_pixels_max", FILM_PIXELS_MAX))),
            float(str(options.get("media_seconds_max", FILM_SECONDS_MAX))),
        )


def marked(prompt: ChatPrompt) -> tuple[ChatPrompt, tuple[Media, ...]]:
    """The prompt with a mark for each picture or film, and these in the order of their marks."""
    media: list[Media] = []
    messages: list[Message] = []
    for message in prompt.messages:
        if message.media:
            media += [placed.media for placed in message.media]
            content = with_texts(message, [MARK] * len(message.media))
            message = msgspec.structs.replace(message, content=content, media=())
        messages.append(message)
    return msgspec.structs.replace(prompt, messages=tuple(messages)), tuple(media)


def with_texts(message: Message, texts: Sequence[str]) -> str:
    """The content of a message with a text in the place of each of its media."""
    pieces: list[str] = []
    begin = 0
    for placed, text in zip(message.media, texts, strict=True):
        pieces += [message.content[begin : placed.at], text]
        begin = placed.at
    return "".join((*pieces, message.content[begin:]))


def data_urls(media: Sequence[Media], sight: Sight) -> tuple[tuple[str, ...], ...]:
    """Each one as pictures: checked, decoded here, shrunk, and written again as PNG. Blocks.

    llama.cpp's own decoders never see what a caller sent. Raises BadRequest.
    """
    return tuple(tuple(map(_data_url, _pictures(one, sight))) for one in media)


def _pictures(media: Media, sight: Sight) -> tuple[Image, ...]:
    # Pillow and PyAV come with an extra; a model that sees needs it.
    if media.kind == "image":
        from inferd.engines.decode_image import decode_image

        return (_shrunk(decode_image(media, param="image"), sight.pixels_max),)
    if media.kind == "video" and sight.frames:
        from inferd.engines.decode_video import Wish, decode_video

        wish = Wish(sight.frames, sight.frame_pixels_max, sight.seconds_max)
        if found := decode_video(media, wish).pictures:
            return found
        raise BadRequest("The film has no pictures in it.", param="video")
    takes = "images and video" if sight.frames else "images"
    raise BadRequest(f"This model takes {takes}, not {media.kind}.", param="messages")


def _shrunk(picture: Image, pixels_max: int) -> Image:
    width, height = picture.size
    shrink = (pixels_max / (width * height)) ** 0.5
    if shrink >= 1:
        return picture
    return picture.resize((max(1, int(width * shrink)), max(1, int(height * shrink))))


def _data_url(picture: Image) -> str:
    written = io.BytesIO()
    picture.save(written, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def content_parts(prompt: str, pictures: Sequence[Sequence[str]]) -> list[Chunk]:
    """llama.cpp's content parts of a rendered prompt. BadRequest if the template lost a mark.

    `pictures` are those of each mark.
    """
    texts = prompt.split(MARK)
    if len(texts) != len(pictures) + 1:
        raise BadRequest(
            "The model's chat template leaves out messages with images here.", param="messages"
        )
    parts: list[Chunk] = []
    for index, text in enumerate(texts):
        for url in pictures[index - 1] if index else ():
            parts.append({"type": "image_url", "image_url": {"url": url}})
        if text:
            parts.append({"type": "text", "text": text})
    return parts


class SeeingServer:
    """A llama.cpp server whose requests may hold pictures; its chunks are those of plain ones."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def handle_completions(self, body: Chunk, callback: Callable[[Chunk], bool]) -> Chunk | None:
        """Compute, as LlamaServer does."""
        if "messages" not in body:
            return cast("LlamaServer", self._server).handle_completions(body, callback)

        def translate(chunk: Chunk) -> bool:
            return callback(_as_completion(chunk))

        asked = {
            **body,
            "stream_options": {"include_usage": True},
            "reasoning_format": "none",
        }
        answer: Chunk | None = self._server.handle_chat_completions(asked, translate)
        return answer


def _as_completion(chunk: Chunk) -> Chunk:
    """A chunk of a chat as one of a completion. Progress and errors are the same in both."""
    if "choices" not in chunk:
        return chunk
    choices: list[Chunk] = chunk["choices"]
    choice: Chunk = choices[0] if choices else {}
    delta: Chunk = choice.get("delta") or {}
    said = {
        "text": delta.get("content") or "",
        "finish_reason": choice.get("finish_reason"),
        "logprobs": choice.get("logprobs"),
    }
    return {**chunk, "choices": [said]}

"""`inferd/emoji-flow` and `inferd/emoji-motion`: small pictures and loops of emoji from text.

Options of a card: `steps`, `guidance`, `strength` (of a picture to start from), and of films
`seconds`, `seconds_max`, `frames_per_second`, `side`. Files: `velocity` and `decoder` (ONNX),
`text_model` and `tokenizer` (all-MiniLM-L6-v2).

The networks are small, so each core computes steps of a request of its own rather than a share of
one step. Requests take turns at each step: a long one does not hold up a short one, and one that
is cancelled stops at its next step.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.errors import BadRequest
from inferd.tasks.base import CHUNK_BYTES_MAX, MICRO, Chunk, Counted, Progress, Stopped, Usage
from inferd.tasks.every import Event
from inferd.tasks.text_to_image import (
    STEPS_MAX,
    ImageRequest,
    Rendered,
    image_quantity,
    preview_pieces,
    preview_steps,
)
from inferd.tasks.text_to_video import Filmed, VideoRequest

if TYPE_CHECKING:
    from PIL import Image

    from inferd.engines.emoji_model import EmojiModel, Floats, Steering

SEEDS = 2**31
MORPH = "->"
"""Between two prompts of a film: it goes from one to the other and back."""


class _Loaded(NamedTuple):
    card: ModelCard
    model: EmojiModel
    threads: ThreadPoolExecutor


class _Start(NamedTuple):
    """Where the drawing of one picture begins."""

    z: Floats
    t: float


class _Canvas(NamedTuple):
    """What all pictures of a request share."""

    loaded: _Loaded
    request: ImageRequest
    steering: Steering
    source: Image.Image | None
    """Where to start from."""

    async def step(self, z: Floats, t: float, dt: float) -> Floats:
        """One step of the drawing."""
        model, threads = self.loaded.model, self.loaded.threads
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, model.step, z, t, dt, self.steering)

    async def encoded(self, z: Floats) -> bytes:
        """What a latent shows, as a file."""
        from inferd.engines.encode_image import encode_image

        loop, threads = asyncio.get_running_loop(), self.loaded.threads
        picture = await loop.run_in_executor(threads, _finished, self, z)
        return await asyncio.to_thread(encode_image, picture, self.request.image_format)


class EmojiFlowEngine:
    """One flow."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Open the networks."""
        from inferd.engines.emoji_model import EmojiModel

        threads = ThreadPoolExecutor(resources.threads, thread_name_prefix="emoji")
        self._loaded = _Loaded(card, EmojiModel(resources), threads)
        return Features((card.task,), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Draw, step by step."""
        assert self._loaded is not None, "nothing runs before it is loaded"
        if isinstance(request, ImageRequest):
            events = _draw(self._loaded, request, cancel)
        elif isinstance(request, VideoRequest):
            events = _film(self._loaded, request, cancel)
        else:
            raise unsupported("emoji_flow", request)
        async for event in events:
            yield event

    async def close(self) -> None:
        """Let the running steps end."""
        if self._loaded is not None:
            self._loaded.threads.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """The weights, twice while they are opened, and what the libraries take."""
        size = sum(path.stat().st_size for path in files.values() if path.exists())
        declared = sum(file.size_bytes for file in card.files)
        return 2 * max(size, declared) + (150 << 20)


async def _draw(
    loaded: _Loaded, request: ImageRequest, cancel: asyncio.Event
) -> AsyncGenerator[Event]:
    from inferd.engines.encode_image import MIMES

    steps, most = _steps(loaded.card, request)
    canvas = await _canvas(loaded, request)
    yield Counted(Usage(quantity=most))
    seed = secrets.randbelow(SEEDS) if request.seed is None else request.seed % 2**64
    done, total = 0, steps * request.n
    for index in range(request.n):
        z, t = _start(canvas, seed + index)
        first = round(t * steps)
        shown = preview_steps(first, steps, request.previews)
        for step in range(first, steps):
            if cancel.is_set():
                yield Stopped(Usage(quantity=most * done // total))
                return
            here = max(t, step / steps)
            length = (step + 1) / steps - here
            before, z = z, await canvas.step(z, here, length)
            done += 1
            usage = Usage(quantity=most * done // total)
            yield Progress(usage, done, total)
            if step + 1 in shown and not cancel.is_set():
                data = await canvas.encoded(loaded.model.ahead(before, z, here, length))
                for piece in preview_pieces(index, shown.index(step + 1), data, usage):
                    yield piece
        done = (index + 1) * steps
        data = await canvas.encoded(z)
        usage = Usage(quantity=most * done // total)
        for at in range(0, len(data), CHUNK_BYTES_MAX):
            yield Chunk(index, data[at : at + CHUNK_BYTES_MAX], usage)
    yield Rendered(request.n, MIMES[request.image_format], seed, steps, Usage(quantity=most))


def _steps(card: ModelCard, request: ImageRequest) -> tuple[int, int]:
    """(steps of each picture, the most that all may cost)."""
    if request.mask is not None and request.image is None:
        raise BadRequest("A mask needs an image.", param="mask")
    default = int(str(card.options.get("steps", 20)))
    steps = min(request.steps or default, STEPS_MAX)
    return steps, image_quantity(request, steps, default)


async def _canvas(loaded: _Loaded, request: ImageRequest) -> _Canvas:
    from inferd.engines.decode_image import decode_image

    loop = asyncio.get_running_loop()
    steering = await loop.run_in_executor(loaded.threads, _steering, loaded, request)
    source = None
    if request.image is not None:
        source = await asyncio.to_thread(decode_image, request.image)
    return _Canvas(loaded, request, steering, source)


def _steering(loaded: _Loaded, request: ImageRequest) -> Steering:
    guidance = _guidance(loaded.card, request.guidance)
    return loaded.model.steering(request.prompt, request.negative_prompt, guidance)


def _start(canvas: _Canvas, seed: int) -> _Start:
    loaded, request, _, source = canvas
    noise = loaded.model.noise(seed)
    if source is None:
        return _Start(noise, 0.0)
    default = float(str(loaded.card.options.get("strength", 0.7)))
    strength = default if request.strength is None else request.strength
    t = 1 - strength
    return _Start(((1 - t) * noise + t * loaded.model.encode(source)).astype(noise.dtype), t)


def _finished(canvas: _Canvas, z: Floats) -> Image.Image:
    """The picture in the size that was asked for; where a mask says so, the old one stays."""
    from PIL import Image

    from inferd.engines.decode_image import decode_mask
    from inferd.engines.encode_image import fitted

    loaded, request, _, source = canvas
    picture = fitted(loaded.model.picture(z), request.width, request.height)
    if source is None or request.mask is None:
        return picture
    mask = decode_mask(request.mask).resize(picture.size)
    return Image.composite(picture, fitted(source, request.width, request.height), mask)


async def _film(
    loaded: _Loaded, request: VideoRequest, cancel: asyncio.Event
) -> AsyncGenerator[Event]:
    from inferd.engines.encode_video import MIME, encode_video

    card, _, threads = loaded
    loop = asyncio.get_running_loop()
    shape = _shape(card, request)
    seed = secrets.randbelow(SEEDS) if request.seed is None else request.seed % 2**64
    first, second = await loop.run_in_executor(threads, _meanings, loaded, request)
    most = round(shape.seconds * MICRO)
    yield Counted(Usage(quantity=most))
    pictures: list[Image.Image] = []
    for index in range(shape.frames):
        if cancel.is_set():
            yield Stopped(Usage(quantity=most * index // shape.frames))
            return
        angle = 2 * math.pi * index / shape.frames
        pictures.append(
            await loop.run_in_executor(
                threads, _frame, loaded, (first, second), _Moment(seed, angle, shape)
            )
        )
        usage = Usage(quantity=most * (index + 1) // shape.frames)
        yield Progress(usage, index + 1, shape.frames)
    data = await asyncio.to_thread(encode_video, pictures, shape.rate)
    usage = Usage(quantity=most)
    for at in range(0, len(data), CHUNK_BYTES_MAX):
        yield Chunk(0, data[at : at + CHUNK_BYTES_MAX], usage)
    ms = shape.frames * 1000 // shape.rate
    yield Filmed(MIME, seed, shape.width, shape.height, ms, shape.frames, usage)


class _Shape(NamedTuple):
    seconds: float
    rate: int
    frames: int
    width: int
    height: int
    steps: int


class _Moment(NamedTuple):
    seed: int
    angle: float
    shape: _Shape


def _shape(card: ModelCard, request: VideoRequest) -> _Shape:
    options = card.options
    longest = float(str(options.get("seconds_max", 10)))
    seconds = request.seconds or float(str(options.get("seconds", 2)))
    if seconds > longest:
        raise BadRequest(f"This model makes films of {longest:g} seconds.", param="seconds")
    if request.image is not None:
        raise BadRequest("This model takes no first frame.", param="image")
    rate = request.frames_per_second or int(str(options.get("frames_per_second", 16)))
    side = int(str(options.get("side", 192)))
    steps = min(request.steps or int(str(options.get("steps", 16))), STEPS_MAX)
    # The film format halves the colours' size, so both sides must be even.
    width, height = ((size or side) // 2 * 2 for size in (request.width, request.height))
    return _Shape(seconds, rate, max(1, round(seconds * rate)), width, height, steps)


def _meanings(loaded: _Loaded, request: VideoRequest) -> tuple[Steering, Steering]:
    first, found, second = request.prompt.partition(MORPH)
    texts = (first, second if found else first)
    guidance = _guidance(loaded.card, request.guidance)
    a, b = (
        loaded.model.steering(
            f"{text.strip()} {request.style}".strip(), request.negative_prompt, guidance
        )
        for text in texts
    )
    return a, b


def _frame(loaded: _Loaded, meanings: tuple[Steering, Steering], moment: _Moment) -> Image.Image:
    from inferd.engines.emoji_model import blend, circle
    from inferd.engines.encode_image import fitted

    model, shape = loaded.model, moment.shape
    first, second = meanings
    share = (1 - math.cos(moment.angle)) / 2
    steering = first._replace(wanted=blend(first.wanted, second.wanted, share))
    z = circle(model.noise(moment.seed), model.noise(moment.seed + 1), moment.angle)
    for step in range(shape.steps):
        z = model.step(z, step / shape.steps, 1 / shape.steps, steering)
    return fitted(model.picture(z), shape.width, shape.height)


def _guidance(card: ModelCard, asked: float | None) -> float:
    return float(str(card.options.get("guidance", 2.0))) if asked is None else asked

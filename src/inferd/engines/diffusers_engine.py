"""Any pipeline of diffusers that draws or films, from a folder of safetensors.

It needs the extra `diffusers`. The card has one file with the role `model`, which is the model's
folder: a hub source, or a path. Options: `steps`, `guidance`, `strength`, `default_width`,
`default_height`, `dtype`, `variant` (of the file names, such as "fp16"), `size_multiple` (sides
are rounded up to it and the picture is cut down again); of films also `seconds`, `seconds_max`,
`frames_per_second` and `frames_multiple` (a film has a multiple of it and one more frame).

One request at a time is computed; the others stand in line for the device.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.errors import BadRequest, EngineFailed, InferdError
from inferd.tasks.base import CHUNK_BYTES_MAX, MICRO, Chunk, Counted, Progress, Stopped, Usage
from inferd.tasks.every import Event
from inferd.tasks.text_to_image import (
    STEPS_MAX,
    ImageRequest,
    Rendered,
    image_quantity,
    preview_pieces,
)
from inferd.tasks.text_to_video import Filmed, VideoRequest

if TYPE_CHECKING:
    from PIL import Image

    from inferd.engines.diffusers_model import Pipelines, Tell, Wish

T = TypeVar("T")
SEEDS = 2**31
SEED_END = 2**63


class _Loaded(NamedTuple):
    card: ModelCard
    pipelines: Pipelines
    thread: ThreadPoolExecutor


class _Stop(Exception):
    """Ends a drawing between two steps."""


class _Step(NamedTuple):
    done: int
    of: int
    preview: Image.Image | None
    """None: the step itself is told, before what it shows."""


class DiffusersEngine:
    """One folder."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Load the pipeline."""
        try:
            from inferd.engines.diffusers_model import Pipelines
        except ImportError as error:
            raise EngineFailed(
                "This model needs the extra inferd[diffusers]: pip install 'inferd[diffusers]'."
            ) from error
        pipelines = Pipelines(card, resources.path("model"), resources.threads)
        thread = ThreadPoolExecutor(1, thread_name_prefix="diffusers")
        self._loaded = _Loaded(card, pipelines, thread)
        return Features((card.task,), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Draw or film, step by step."""
        assert self._loaded is not None, "nothing runs before it is loaded"
        if isinstance(request, ImageRequest):
            events = _draw(self._loaded, request, cancel)
        elif isinstance(request, VideoRequest):
            events = _film(self._loaded, request, cancel)
        else:
            raise unsupported("diffusers", request)
        async for event in events:
            yield event

    async def close(self) -> None:
        """Let the running step end."""
        if self._loaded is not None:
            self._loaded.thread.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """The weights, a fifth more for what is computed, and what torch takes for itself."""
        size = sum(
            file.stat().st_size for path in files.values() for file in path.rglob("*.safetensors")
        )
        declared = sum(file.size_bytes for file in card.files)
        return max(size, declared) * 6 // 5 + (1 << 30)


async def _draw(
    loaded: _Loaded, request: ImageRequest, cancel: asyncio.Event
) -> AsyncGenerator[Event]:
    from inferd.engines.encode_image import MIMES, encode_image

    card, pipelines, _ = loaded
    wish = await asyncio.to_thread(_picture_wish, card, request)
    most = image_quantity(request, wish.steps, int(_option(card, "steps", 20)))
    yield Counted(Usage(quantity=most))
    done, total = 0, wish.steps * request.n
    for index in range(request.n):
        one = wish._replace(seed=(wish.seed + index) % SEED_END)
        drawing, shown = _Drawing(loaded, cancel, partial(pipelines.draw, one)), 0
        async for step in drawing.steps():
            done = index * wish.steps + step.done * wish.steps // step.of
            usage = Usage(quantity=most * done // total)
            if step.preview is None:
                yield Progress(usage, done, total)
                continue
            data = await asyncio.to_thread(encode_image, step.preview, request.image_format)
            for piece in preview_pieces(index, shown, data, usage):
                yield piece
            shown += 1
        if drawing.result is None:
            yield Stopped(Usage(quantity=most * done // total))
            return
        data = await asyncio.to_thread(encode_image, drawing.result, request.image_format)
        done = (index + 1) * wish.steps
        usage = Usage(quantity=most * done // total)
        for at in range(0, len(data), CHUNK_BYTES_MAX):
            yield Chunk(index, data[at : at + CHUNK_BYTES_MAX], usage)
    mime = MIMES[request.image_format]
    yield Rendered(request.n, mime, wish.seed, wish.steps, Usage(quantity=most))


async def _film(
    loaded: _Loaded, request: VideoRequest, cancel: asyncio.Event
) -> AsyncGenerator[Event]:
    from inferd.engines.encode_video import MIME, encode_video

    card, pipelines, _ = loaded
    wish, seconds = await asyncio.to_thread(_film_wish, card, request)
    most, done = round(seconds * MICRO), 0
    yield Counted(Usage(quantity=most))
    filming = _Drawing(loaded, cancel, partial(pipelines.film, wish))
    async for step in filming.steps():
        done = most * step.done // step.of
        yield Progress(Usage(quantity=done), step.done, step.of)
    if filming.result is None:
        yield Stopped(Usage(quantity=done))
        return
    data = await asyncio.to_thread(encode_video, filming.result, wish.rate)
    usage = Usage(quantity=most)
    for at in range(0, len(data), CHUNK_BYTES_MAX):
        yield Chunk(0, data[at : at + CHUNK_BYTES_MAX], usage)
    frames = len(filming.result)
    ms = frames * 1000 // wish.rate
    yield Filmed(MIME, wish.seed, wish.width, wish.height, ms, frames, usage)


class _Drawing(Generic[T]):
    """One call of a pipeline in the engine's thread."""

    def __init__(self, loaded: _Loaded, cancel: asyncio.Event, work: Callable[[Tell], T]) -> None:
        self.result: T | None = None
        """None after `steps` if it was cancelled."""
        self._thread = loaded.thread
        self._cancel = cancel
        self._work = work
        self._left = False
        """Nobody listens any more."""

    async def steps(self) -> AsyncGenerator[_Step]:
        """Each step when it is done. Raises what the pipeline raises, as an InferdError."""
        loop, told = asyncio.get_running_loop(), asyncio.Queue[_Step | None]()

        def tell(done: int, of: int, preview: Image.Image | None = None, /) -> None:
            loop.call_soon_threadsafe(told.put_nowait, _Step(done, of, preview))
            self._check()

        future = loop.run_in_executor(self._thread, self._computed, tell)
        future.add_done_callback(lambda _: told.put_nowait(None))
        try:
            while (step := await told.get()) is not None:
                yield step
            self.result = future.result()
        finally:
            self._left = True

    def _computed(self, tell: Tell) -> T | None:
        try:
            self._check()
            return self._work(tell)
        except _Stop:
            return None
        except InferdError:
            raise
        except Exception as error:
            # The library's errors have no common class but Exception.
            raise EngineFailed(
                "The pipeline failed on this input.", detail=repr(error)[:500]
            ) from error

    def _check(self) -> None:
        if self._left or self._cancel.is_set():
            raise _Stop


def _picture_wish(card: ModelCard, request: ImageRequest) -> Wish:
    from inferd.engines.decode_image import decode_image, decode_mask
    from inferd.engines.diffusers_model import Wish

    if request.mask is not None and request.image is None:
        raise BadRequest("A mask needs an image.", param="mask")
    strength = request.strength
    return Wish(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        steps=_steps(card, request.steps),
        guidance=_guidance(card, request.guidance),
        seed=_seed(request.seed),
        image=None if request.image is None else decode_image(request.image),
        mask=None if request.mask is None else decode_mask(request.mask),
        strength=_option(card, "strength", 0.7) if strength is None else strength,
        previews=request.previews,
    )


def _film_wish(card: ModelCard, request: VideoRequest) -> tuple[Wish, float]:
    """The film, and its seconds."""
    from inferd.engines.decode_image import decode_image
    from inferd.engines.diffusers_model import Wish

    longest = _option(card, "seconds_max", 5)
    seconds = request.seconds or _option(card, "seconds", 5)
    if seconds > longest:
        raise BadRequest(f"This model makes films of {longest:g} seconds.", param="seconds")
    rate = request.frames_per_second or int(_option(card, "frames_per_second", 16))
    multiple = int(_option(card, "frames_multiple", 4))
    width = request.width or int(_option(card, "default_width", 832))
    height = request.height or int(_option(card, "default_height", 480))
    wish = Wish(
        prompt=f"{request.prompt} {request.style}".strip(),
        negative_prompt=request.negative_prompt,
        # The film format halves the colours' size, so both sides must be even.
        width=width // 2 * 2,
        height=height // 2 * 2,
        steps=_steps(card, request.steps),
        guidance=_guidance(card, request.guidance),
        seed=_seed(request.seed),
        image=None if request.image is None else decode_image(request.image),
        frames=max(1, round(seconds * rate / multiple)) * multiple + 1,
        rate=rate,
    )
    return wish, seconds


def _option(card: ModelCard, name: str, default: float) -> float:
    return float(str(card.options.get(name, default)))


def _steps(card: ModelCard, asked: int | None) -> int:
    return min(asked or int(_option(card, "steps", 20)), STEPS_MAX)


def _guidance(card: ModelCard, asked: float | None) -> float:
    return _option(card, "guidance", 5) if asked is None else asked


def _seed(asked: int | None) -> int:
    return secrets.randbelow(SEEDS) if asked is None else asked % SEED_END

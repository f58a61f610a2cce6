"""What the small image engine guarantees: seeds, steps, formats, bills, ends. Real weights."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from inferd.catalog.card import ModelCard
from inferd.engines.base import Resources
from inferd.engines.emoji_flow import EmojiFlowEngine
from inferd.errors import BadRequest
from inferd.tasks.base import CHUNK_BYTES_MAX, NOTHING, Chunk, Counted, Progress, Stopped
from inferd.tasks.embeddings import EmbeddingsRequest
from inferd.tasks.every import Event
from inferd.tasks.media import Media
from inferd.tasks.text_to_image import ImageRequest, Preview, Rendered
from inferd.tasks.text_to_video import Filmed, VideoRequest
from tests.weights import local_card

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


async def loaded(card: ModelCard, folder: Path) -> EmojiFlowEngine:
    files = {file.role: str(getattr(file.source, "path", "")) for file in card.files}
    engine = EmojiFlowEngine()
    features = await asyncio.to_thread(engine.load, card, Resources(files, 2, str(folder)))
    assert features.tasks == (card.task,)
    return engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def flow(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[EmojiFlowEngine]:
    engine = await loaded(local_card("inferd/emoji-flow"), tmp_path_factory.mktemp("flow"))
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def motion(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[EmojiFlowEngine]:
    engine = await loaded(local_card("inferd/emoji-motion"), tmp_path_factory.mktemp("motion"))
    yield engine
    await engine.close()


def wish(prompt: str = "red heart", **fields: Any) -> ImageRequest:
    given: dict[str, Any] = {"width": 96, "height": 96, "seed": 3, **fields}
    return ImageRequest("m", prompt, **given)


async def told(engine: EmojiFlowEngine, request: Any) -> list[Event]:
    return [event async for event in engine.run(request, asyncio.Event())]


def encoded(events: list[Event], index: int = 0) -> bytes:
    return b"".join(one.data for one in events if isinstance(one, Chunk) and one.index == index)


def opened(events: list[Event], index: int = 0) -> Image.Image:
    return Image.open(io.BytesIO(encoded(events, index)))


def pixels(events: list[Event], index: int = 0) -> Any:
    return np.asarray(opened(events, index).convert("RGB"), np.float32)


def previews(events: list[Event], index: int = 0) -> list[bytes]:
    """Each of them whole, in order."""
    pieces = [one for one in events if isinstance(one, Preview) and one.index == index]
    count = sum(one.whole for one in pieces)
    return [b"".join(one.data for one in pieces if one.number == at) for at in range(count)]


def frames(film: bytes) -> Any:
    library: Any = av
    with library.open(io.BytesIO(film)) as opened_film:
        decoded = opened_film.decode(opened_film.streams.video[0])
        return np.stack([frame.to_ndarray(format="rgb24").astype(np.float32) for frame in decoded])


def as_media(picture: Image.Image) -> Media:
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return Media("image", "image/png", len(sink.getvalue()), data=sink.getvalue())


class TestSeeds:
    async def test_the_same_seed_gives_the_same_bytes_alone_and_among_others(
        self, flow: EmojiFlowEngine
    ) -> None:
        alone = encoded(await told(flow, wish()))
        others = ("rocket", "soccer ball", "tiger")
        among = await asyncio.gather(
            told(flow, wish()), *(told(flow, wish(one, seed=9)) for one in others)
        )
        assert encoded(among[0]) == alone
        assert len({encoded(one) for one in among}) == 4

    async def test_picture_k_of_n_is_the_picture_of_seed_plus_k(
        self, flow: EmojiFlowEngine
    ) -> None:
        several = await told(flow, wish(n=3, seed=10))
        for index in range(3):
            assert encoded(several, index) == encoded(await told(flow, wish(seed=10 + index)))

    async def test_a_seed_that_was_drawn_is_told_and_repeats_the_picture(
        self, flow: EmojiFlowEngine
    ) -> None:
        first = await told(flow, wish(seed=None))
        last = first[-1]
        assert isinstance(last, Rendered)
        assert encoded(await told(flow, wish(seed=last.seed))) == encoded(first)


class TestSteps:
    @pytest.mark.parametrize(("steps", "n"), [(None, 1), (7, 2), (1, 1)])
    async def test_each_step_is_told_and_counted(
        self, flow: EmojiFlowEngine, steps: int | None, n: int
    ) -> None:
        events = await told(flow, wish(steps=steps, n=n))
        done = [event.step for event in events if isinstance(event, Progress)]
        assert done == list(range(1, (steps or 20) * n + 1))
        counted, last = events[0], events[-1]
        assert isinstance(counted, Counted)
        assert isinstance(last, Rendered)
        # Image units: 96 × 96 of 1024 × 1024 pixels, at `steps` of the card's 20.
        assert last.usage.quantity == round(96 * 96 / 1048576 * (steps or 20) / 20 * n * 1e6)
        assert counted.most == last.usage

    async def test_a_cancel_ends_at_the_next_step_and_bills_what_was_done(
        self, flow: EmojiFlowEngine
    ) -> None:
        cancel, seen = asyncio.Event(), list[Event]()
        async for event in flow.run(wish(width=1024, height=1024, steps=100), cancel):
            seen.append(event)
            if isinstance(event, Progress) and event.step == 25:
                cancel.set()
        assert isinstance(seen[-1], Stopped)
        assert seen[-1].usage.quantity == 1_250_000
        assert not any(isinstance(event, Chunk) for event in seen)


class TestPictures:
    @pytest.mark.parametrize(
        ("image_format", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")]
    )
    async def test_formats(self, flow: EmojiFlowEngine, image_format: Any, name: str) -> None:
        events = await told(flow, wish(image_format=image_format))
        assert opened(events).format == name
        assert isinstance(events[-1], Rendered)
        assert events[-1].mime == f"image/{image_format}"

    @pytest.mark.parametrize(("width", "height"), [(32, 32), (512, 256), (101, 333), (2048, 2048)])
    async def test_sizes_are_as_asked_in_pieces_that_fit_a_frame(
        self, flow: EmojiFlowEngine, width: int, height: int
    ) -> None:
        events = await told(flow, wish(width=width, height=height))
        assert opened(events).size == (width, height)
        assert all(len(one.data) <= CHUNK_BYTES_MAX for one in events if isinstance(one, Chunk))

    async def test_a_red_heart_is_red_and_a_green_one_green(self, flow: EmojiFlowEngine) -> None:
        for prompt, channel in (("heavy black heart", 0), ("green heart", 1), ("blue heart", 2)):
            centre = pixels(await told(flow, wish(prompt)))[30:60, 30:60].mean((0, 1))
            assert centre.argmax() == channel, prompt

    async def test_a_negative_prompt_and_guidance_change_the_picture(
        self, flow: EmojiFlowEngine
    ) -> None:
        plain = encoded(await told(flow, wish()))
        assert encoded(await told(flow, wish(negative_prompt="cat face"))) != plain
        assert encoded(await told(flow, wish(guidance=1.0))) != plain
        assert encoded(await told(flow, wish(guidance=2.0))) == plain


class TestPreviews:
    async def test_they_come_nearer_to_a_picture_that_they_do_not_change(
        self, flow: EmojiFlowEngine
    ) -> None:
        events = await told(flow, wish("rocket", previews=3, n=2))
        plain = await told(flow, wish("rocket", n=2))
        for index in range(2):
            assert encoded(events, index) == encoded(plain, index)
            shown = [Image.open(io.BytesIO(one)) for one in previews(events, index)]
            assert [one.size for one in shown] == [(96, 96)] * 3
            last = pixels(events, index)
            off = [float(np.abs(np.asarray(one, np.float32) - last).mean()) for one in shown]
            assert off[0] > off[1] > off[2] > 0
        assert [one for one in events if not isinstance(one, Preview)] == plain

    async def test_they_come_after_their_steps_and_say_what_was_used(
        self, flow: EmojiFlowEngine
    ) -> None:
        step, after = Progress(NOTHING), list[int]()
        for event in await told(flow, wish(previews=3, steps=8)):
            if isinstance(event, Progress):
                step = event
            elif isinstance(event, Preview):
                after.append(step.step)
                assert event.usage == step.usage
        assert after == [2, 4, 6]

    async def test_the_one_after_the_first_step_is_what_a_single_step_draws(
        self, flow: EmojiFlowEngine
    ) -> None:
        events = await told(flow, wish(previews=1, steps=2))
        assert previews(events) == [encoded(await told(flow, wish(steps=1)))]

    async def test_large_ones_come_in_pieces_that_fit_a_frame(self, flow: EmojiFlowEngine) -> None:
        events = await told(flow, wish(width=1024, height=1024, previews=1))
        pieces = [one for one in events if isinstance(one, Preview)]
        assert len(pieces) > 1
        assert all(len(one.data) <= CHUNK_BYTES_MAX for one in pieces)
        assert [one.whole for one in pieces] == [False] * (len(pieces) - 1) + [True]
        assert Image.open(io.BytesIO(*previews(events))).size == (1024, 1024)

    async def test_from_a_picture_they_lie_in_the_steps_that_are_taken(
        self, flow: EmojiFlowEngine
    ) -> None:
        image = as_media(Image.new("RGB", (96, 96), (90, 120, 150)))
        taken = await told(flow, wish(image=image, strength=0.3, steps=10, previews=3))
        assert len(previews(taken)) == 2
        assert not previews(await told(flow, wish(image=image, strength=0.0, previews=3)))


class TestFromAPicture:
    async def test_less_strength_keeps_more_of_it(self, flow: EmojiFlowEngine) -> None:
        source = pixels(await told(flow, wish("rocket")))
        image = as_media(Image.fromarray(source.astype(np.uint8)))
        off = [
            float(np.abs(pixels(await told(flow, wish(image=image, strength=one))) - source).mean())
            for one in (0.0, 0.5, 1.0)
        ]
        assert off[0] < 12 < off[2]
        assert off[0] < off[1] < off[2]
        # All of it forgotten: as if it had not been there.
        forgotten = encoded(await told(flow, wish(image=image, strength=1.0)))
        assert forgotten == encoded(await told(flow, wish()))

    async def test_a_mask_says_what_may_change(self, flow: EmojiFlowEngine) -> None:
        grey = Image.new("RGB", (96, 96), (90, 120, 150))
        light = Image.new("L", (96, 96), 0)
        light.paste(255, (0, 0, 48, 96))
        clear = Image.new("RGBA", (96, 96), (0, 0, 0, 255))
        clear.paste((0, 0, 0, 0), (0, 0, 48, 96))
        for mask in (light, clear):
            events = await told(flow, wish(image=as_media(grey), mask=as_media(mask), strength=1.0))
            drawn = pixels(events)
            assert (drawn[:, 49:] == (90, 120, 150)).all()
            assert np.abs(drawn[:, :47] - (90, 120, 150)).mean() > 20

    async def test_a_mask_alone_is_refused(self, flow: EmojiFlowEngine) -> None:
        mask = as_media(Image.new("L", (8, 8)))
        with pytest.raises(BadRequest, match="mask needs an image"):
            await told(flow, wish(mask=mask))


class TestRefusals:
    async def test_a_prompt_that_is_too_long(self, flow: EmojiFlowEngine) -> None:
        with pytest.raises(BadRequest, match="tokens"):
            await told(flow, wish("cat " * 200))

    async def test_what_is_no_picture(self, flow: EmojiFlowEngine) -> None:
        with pytest.raises(BadRequest, match="not a sound picture"):
            await told(flow, wish(image=Media("image", "image/png", 4, data=b"\x89PNG")))

    async def test_another_task(self, flow: EmojiFlowEngine) -> None:
        with pytest.raises(BadRequest, match="does not do this task"):
            await told(flow, EmbeddingsRequest("m", ("text",)))


class TestFilms:
    async def test_a_film_has_its_frames_its_length_and_its_index_in_front(
        self, motion: EmojiFlowEngine
    ) -> None:
        wanted = VideoRequest("m", "a cat", seconds=1.5, width=128, height=96, seed=1, steps=4)
        events = await told(motion, wanted)
        film, last = encoded(events), events[-1]
        assert isinstance(last, Filmed)
        assert (last.width, last.height, last.frames, last.duration_ms) == (128, 96, 24, 1500)
        assert last.usage.quantity == 1_500_000
        assert film[4:8] == b"ftyp"
        assert film.index(b"moov") < film.index(b"mdat")
        library: Any = av
        with library.open(io.BytesIO(film)) as opened_film:
            stream = opened_film.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert (stream.width, stream.height, stream.average_rate) == (128, 96, 16)
            assert len([*opened_film.decode(stream)]) == 24
        assert [one.step for one in events if isinstance(one, Progress)] == [*range(1, 25)]

    async def test_the_same_seed_gives_the_same_film(self, motion: EmojiFlowEngine) -> None:
        def wanted(seed: int) -> VideoRequest:
            return VideoRequest("m", "a dog -> a fox", seconds=0.5, seed=seed, steps=4)

        films = await asyncio.gather(*(told(motion, wanted(seed)) for seed in (5, 5, 6)))
        first, again, other = (frames(encoded(one)) for one in films)
        assert np.abs(first - again).mean() < 3
        assert np.abs(first - other).mean() > 6

    async def test_a_cancel_ends_at_the_next_frame(self, motion: EmojiFlowEngine) -> None:
        cancel, seen = asyncio.Event(), list[Event]()
        async for event in motion.run(VideoRequest("m", "a cat", seconds=8, steps=2), cancel):
            seen.append(event)
            if isinstance(event, Progress):
                cancel.set()
        assert isinstance(seen[-1], Stopped)
        assert seen[-1].usage.quantity == 8_000_000 // 128

    @pytest.mark.parametrize("fields", [{"seconds": 11.0}, {"image": Media("image", "x", 0)}])
    async def test_what_it_does_not_do(self, motion: EmojiFlowEngine, fields: Any) -> None:
        with pytest.raises(BadRequest):
            await told(motion, VideoRequest("m", "a cat", **fields))

"""The engine of diffusers with pipelines of the true classes: steps, seeds, ends, refusals."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Resources
from inferd.engines.diffusers_engine import DiffusersEngine
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.base import Chunk, Counted, Progress, Stopped, TaskName
from inferd.tasks.every import Event
from inferd.tasks.media import Media
from inferd.tasks.text_to_image import ImageRequest, Preview, Rendered
from inferd.tasks.text_to_video import Filmed, VideoRequest
from tests.diffusers import tiny

pytestmark = [
    pytest.mark.diffusers,
    # The libraries warn about what they will drop, at each other.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    makers: dict[str, Callable[[Path], Path]] = {
        "sdxl": tiny.sdxl,
        "flux": tiny.flux,
        "wan": tiny.wan,
    }
    return {name: make(root) for name, make in makers.items()}


def loaded(folder: Path, task: TaskName = "text-to-image", **options: Any) -> DiffusersEngine:
    card = ModelCard(
        name="test/tiny",
        task=task,
        engine="diffusers",
        licence="none",
        summary="Tiny.",
        free=True,
        options={"steps": 4, "guidance": 3.0, "size_multiple": 16, **options},
    )
    engine = DiffusersEngine()
    features = engine.load(card, Resources({"model": str(folder)}, 1, "/tmp"))
    assert features == Features((task,), card.slots, 0)
    return engine


def wish(**fields: Any) -> ImageRequest:
    given: dict[str, Any] = {"width": 64, "height": 64, "seed": 3, **fields}
    return ImageRequest("m", "a cat", **given)


async def told(engine: DiffusersEngine, request: Any) -> list[Event]:
    return [event async for event in engine.run(request, asyncio.Event())]


def encoded(events: list[Event], index: int = 0) -> bytes:
    return b"".join(one.data for one in events if isinstance(one, Chunk) and one.index == index)


def opened(events: list[Event], index: int = 0) -> Image.Image:
    return Image.open(io.BytesIO(encoded(events, index))).convert("RGB")


def previews(events: list[Event]) -> list[Image.Image]:
    """Each of them is one piece: the pictures are small."""
    shown = [one for one in events if isinstance(one, Preview)]
    assert all(one.whole for one in shown)
    assert [one.number for one in shown] == list(range(len(shown)))
    return [Image.open(io.BytesIO(one.data)).convert("RGB") for one in shown]


def off(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


def as_media(picture: Image.Image) -> Media:
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return Media("image", "image/png", len(sink.getvalue()), data=sink.getvalue())


GREY = as_media(Image.new("RGB", (64, 64), (90, 120, 150)))


@pytest.mark.parametrize("name", ["sdxl", "flux"])
class TestPictures:
    async def test_each_step_is_told_and_the_bill_is_exact(
        self, folders: dict[str, Path], name: str
    ) -> None:
        events = await told(loaded(folders[name]), wish(n=2, steps=3))
        assert isinstance(events[0], Counted)
        assert [one.step for one in events if isinstance(one, Progress)] == [1, 2, 3, 4, 5, 6]
        last = events[-1]
        assert isinstance(last, Rendered)
        # 64 × 64 of 2²⁰ pixels, 3 of 4 steps, twice.
        assert last.usage.quantity == events[0].most.quantity == 5859
        assert [opened(events, index).size for index in range(2)] == [(64, 64)] * 2

    async def test_a_seed_repeats_its_picture_alone_and_as_one_of_n(
        self, folders: dict[str, Path], name: str
    ) -> None:
        engine = loaded(folders[name])
        several, alone, other = await asyncio.gather(
            told(engine, wish(n=2, seed=7)), told(engine, wish(seed=8)), told(engine, wish(seed=9))
        )
        assert encoded(several, 1) == encoded(alone)
        assert encoded(alone) != encoded(other)

    async def test_odd_sizes_are_kept(self, folders: dict[str, Path], name: str) -> None:
        events = await told(loaded(folders[name]), wish(width=70, height=33, steps=1))
        assert opened(events).size == (70, 33)

    async def test_a_picture_and_a_mask(self, folders: dict[str, Path], name: str) -> None:
        engine = loaded(folders[name])
        from_noise = await told(engine, wish())
        from_grey = await told(engine, wish(image=GREY, strength=0.5))
        assert encoded(from_grey) != encoded(from_noise)
        # Two of the four steps are taken.
        assert [one.step for one in from_grey if isinstance(one, Progress)] == [2, 4]
        kept = await told(engine, wish(image=GREY, strength=0.0))
        assert opened(kept).getpixel((5, 5)) == (90, 120, 150)
        mask = Image.new("L", (64, 64), 0)
        mask.paste(255, (0, 0, 32, 64))
        masked = opened(await told(engine, wish(image=GREY, mask=as_media(mask), strength=1.0)))
        assert masked.crop((33, 0, 64, 64)).getcolors() == [(31 * 64, (90, 120, 150))]
        assert masked.crop((0, 0, 31, 64)).getcolors(1) is None

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    async def test_previews_come_nearer_to_a_picture_that_they_do_not_change(
        self, folders: dict[str, Path], name: str, dtype: str
    ) -> None:
        engine = loaded(folders[name], dtype=dtype)
        for fields in ({}, {"width": 70, "height": 33}, {"image": GREY, "strength": 1.0}):
            events = await told(engine, wish(steps=8, previews=3, **fields))
            plain = await told(engine, wish(steps=8, **fields))
            assert [one for one in events if not isinstance(one, Preview)] == plain
            shown, last = previews(events), opened(events)
            assert [one.size for one in shown] == [last.size] * 3
            first, *_, nearest = (off(one, last) for one in shown)
            assert nearest < first

    async def test_after_the_last_step_a_preview_would_be_the_picture(
        self, folders: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def last_step(first: int, last: int, wanted: int) -> list[int]:
            return [last] if wanted else []

        monkeypatch.setattr("inferd.engines.diffusers_preview.preview_steps", last_step)
        for dtype in ("float32", "bfloat16", "float16"):
            events = await told(loaded(folders[name], dtype=dtype), wish(previews=1))
            (shown,) = previews(events)
            assert off(shown, opened(events)) < 0.5, dtype

    async def test_a_preview_keeps_what_a_mask_keeps(
        self, folders: dict[str, Path], name: str
    ) -> None:
        mask = Image.new("L", (64, 64), 0)
        mask.paste(255, (0, 0, 32, 64))
        fields = {"image": GREY, "mask": as_media(mask), "strength": 1.0}
        (shown,) = previews(await told(loaded(folders[name]), wish(previews=1, **fields)))
        assert shown.crop((33, 0, 64, 64)).getcolors() == [(31 * 64, (90, 120, 150))]

    async def test_a_cancel_ends_at_the_next_step_and_the_line_moves_on(
        self, folders: dict[str, Path], name: str
    ) -> None:
        engine, cancel, seen = loaded(folders[name]), asyncio.Event(), list[Event]()
        async for event in engine.run(wish(steps=100), cancel):
            seen.append(event)
            if isinstance(event, Progress):
                cancel.set()
        last = seen[-1]
        assert isinstance(last, Stopped)
        assert 0 < last.usage.quantity < 100 * 977 // 4
        assert not any(isinstance(event, Chunk) for event in seen)
        assert isinstance((await told(engine, wish(steps=1)))[-1], Rendered)

    async def test_who_leaves_frees_the_line(self, folders: dict[str, Path], name: str) -> None:
        engine = loaded(folders[name])
        events = engine.run(wish(steps=200), asyncio.Event())
        async for event in events:
            if isinstance(event, Progress):
                break
        await events.aclose()
        assert isinstance((await told(engine, wish(steps=1)))[-1], Rendered)


class TestPreviewsOfOtherFamilies:
    """A preview is shown where it can be made as the pipeline makes its picture, else none."""

    @pytest.mark.parametrize("name", ["UniPCMultistep", "EulerAncestralDiscrete", "DDIM", "LCM"])
    async def test_each_scheduler_shows_what_it_has(
        self, folders: dict[str, Path], tmp_path: Path, name: str
    ) -> None:
        folder = self.with_scheduler(folders["sdxl"], tmp_path, f"{name}Scheduler")
        events = await told(loaded(folder), wish(steps=8, previews=3))
        first, *_, nearest = (off(one, opened(events)) for one in previews(events))
        assert nearest < first

    async def test_latents_that_nobody_knows_are_not_shown(
        self, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pipeline: Any = import_module("diffusers").FluxPipeline
        unpack = pipeline._unpack_latents

        def other(latents: Any, height: int, width: int, vae_scale_factor: int, x: int = 0) -> Any:
            return unpack(latents, height, width, vae_scale_factor)

        monkeypatch.setattr(pipeline, "_unpack_latents", staticmethod(other))
        events = await told(loaded(folders["flux"]), wish(previews=3))
        assert not previews(events)
        assert isinstance(events[-1], Rendered)

    def with_scheduler(self, folder: Path, tmp_path: Path, name: str) -> Path:
        """The same pipeline with another one."""
        copied = tmp_path / "model"
        shutil.copytree(folder, copied)
        path = copied / "model_index.json"
        index = json.loads(path.read_text())
        path.write_text(json.dumps({**index, "scheduler": ["diffusers", name]}))
        return copied


class TestWishes:
    async def test_a_negative_prompt_counts_where_there_is_guidance(
        self, folders: dict[str, Path]
    ) -> None:
        engine = loaded(folders["sdxl"])
        plain = encoded(await told(engine, wish()))
        assert encoded(await told(engine, wish(negative_prompt="zebra ###"))) != plain
        with pytest.raises(BadRequest, match="guidance_scale above 1"):
            await told(engine, wish(negative_prompt="dog", guidance=0.0))
        with pytest.raises(BadRequest, match="no negative prompt"):
            await told(loaded(folders["flux"]), wish(negative_prompt="dog"))

    async def test_a_film(self, folders: dict[str, Path]) -> None:
        engine = loaded(folders["wan"], "text-to-video", frames_multiple=4, steps=2)
        request = VideoRequest(
            "m", "a cat", seconds=0.5, width=32, height=48, frames_per_second=16, seed=1
        )
        events = await told(engine, request)
        last = events[-1]
        assert isinstance(last, Filmed)
        assert (last.width, last.height, last.frames) == (32, 48, 9)
        assert last.usage.quantity == 500_000
        assert [one.step for one in events if isinstance(one, Progress)] == [1, 2]
        assert encoded(events)[4:8] == b"ftyp"
        with pytest.raises(BadRequest, match="no first frame"):
            await told(engine, VideoRequest("m", "a cat", seconds=0.5, image=GREY))
        with pytest.raises(BadRequest, match="films of 5 seconds"):
            await told(engine, VideoRequest("m", "a cat", seconds=6))


class TestFolders:
    """What is in a folder is not trusted."""

    def changed(self, folders: dict[str, Path], tmp_path: Path, **index: Any) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(folders["sdxl"], folder)
        path = folder / "model_index.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **index}))
        return folder

    @pytest.mark.parametrize(
        ("index", "sentence"),
        [
            ({"_class_name": "Nothing"}, "not one that diffusers knows"),
            ({"_class_name": "AutoencoderKL"}, "not one that diffusers knows"),
            ({"_class_name": ["pipeline", "Mine"]}, "not one that diffusers knows"),
            ({"unet": ["my_unet", "Unet"]}, "code of its own"),
            ({"unet": ["os", "system"]}, "code of its own"),
        ],
    )
    def test_code_is_never_run(
        self, folders: dict[str, Path], tmp_path: Path, index: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(EngineFailed, match=sentence):
            loaded(self.changed(folders, tmp_path, **index))

    def test_pickles_are_never_read(self, folders: dict[str, Path], tmp_path: Path) -> None:
        folder = self.changed(folders, tmp_path)
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_suffix(".bin"))
        with pytest.raises(EngineFailed, match="no other weights are read"):
            loaded(folder)

    def test_a_folder_without_an_index(self, tmp_path: Path) -> None:
        with pytest.raises(EngineFailed, match=r"model_index\.json"):
            loaded(tmp_path)

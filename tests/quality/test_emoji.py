"""emoji-flow against the glyphs that it learnt: the nearest one is the one that was asked for.

emoji_glyphs.png holds all 1,355 glyphs of Noto Color Emoji (SIL Open Font License 1.1) at 12 × 12,
37 in a row, in the order of emoji_names.txt, their Unicode names. Those in emoji_held_out.txt
were kept from the training.
"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inferd.engines.base import Resources
from inferd.engines.emoji_flow import EmojiFlowEngine
from inferd.tasks.base import Chunk
from inferd.tasks.text_to_image import ImageRequest
from tests.weights import local_card

CAPTIONS = 200
ACCURACY_MIN = 0.95
SIDE, ACROSS = 12, 37

Pixels = NDArray[np.float32]


def glyphs() -> tuple[Pixels, list[str]]:
    here = Path(__file__)
    names = here.with_name("emoji_names.txt").read_text().splitlines()
    with Image.open(here.with_name("emoji_glyphs.png")) as sheet:
        pixels = np.asarray(sheet.convert("RGB"), np.float32)
    rows = pixels.reshape(-1, SIDE, ACROSS, SIDE, 3).swapaxes(1, 2)
    return rows.reshape(-1, SIDE * SIDE * 3)[: len(names)], names


def reduced(png: bytes) -> Pixels:
    with Image.open(io.BytesIO(png)) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.float32)
    side = picture.width // SIDE
    return pixels.reshape(SIDE, side, SIDE, side, 3).mean((1, 3)).reshape(-1)


@pytest.mark.engine
async def test_the_nearest_glyph_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    card = local_card("inferd/emoji-flow")
    files = {file.role: str(getattr(file.source, "path", "")) for file in card.files}
    engine = EmojiFlowEngine()
    await asyncio.to_thread(engine.load, card, Resources(files, 1, str(tmp_path)))
    sheet, names = glyphs()
    assert len(names) == 1355
    right = 0
    order: list[int] = np.random.default_rng(7).permutation(len(names)).tolist()
    held_out = Path(__file__).with_name("emoji_held_out.txt").read_text().splitlines()
    trained = [index for index in order if names[index] not in held_out]
    for seed, index in enumerate(trained[:CAPTIONS]):
        request = ImageRequest(card.name, names[index], width=48, height=48, seed=seed)
        png = b"".join(
            [
                event.data
                async for event in engine.run(request, asyncio.Event())
                if isinstance(event, Chunk)
            ]
        )
        right += int(np.square(sheet - reduced(png)).sum(1).argmin()) == index
    await engine.close()
    assert right >= ACCURACY_MIN * CAPTIONS, f"{right} of {CAPTIONS}"

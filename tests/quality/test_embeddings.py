"""The packaged 8-bit MiniLM against the vectors of the original weights in full precision.

minilm_fp32.json comes from scripts/reference_embeddings.py, which has a forward pass of its own.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from pathlib import Path

import msgspec
import numpy as np
import pytest

from inferd.engines.base import Resources
from inferd.engines.onnx_encoder import OnnxEncoderEngine
from inferd.tasks.embeddings import Embedded, EmbeddingsRequest
from tests.weights import local_card

COSINE_MIN = 0.999
ODD = {"!!!???...", "😀 🚀 ✈️", "[CLS] is not special here [SEP]"}
"""Hardly any words: what the model was not trained on, and where 8 bits show."""
ODD_COSINE_MIN = 0.996


class Reference(msgspec.Struct):
    source: dict[str, str]
    vectors: list[tuple[str, str]]
    """(text, float32 in base64)."""


@pytest.mark.engine
async def test_each_vector_is_the_originals(tmp_path: Path) -> None:
    raw = Path(__file__).with_name("minilm_fp32.json").read_bytes()
    reference = msgspec.json.decode(raw, type=Reference)
    assert len(reference.vectors) == 64
    card = local_card(reference.source["model"])
    files = {file.role: str(getattr(file.source, "path", "")) for file in card.files}
    engine = OnnxEncoderEngine()
    await asyncio.to_thread(engine.load, card, Resources(files, 2, str(tmp_path)))
    request = EmbeddingsRequest(card.name, tuple(text for text, _ in reference.vectors))
    events = [event async for event in engine.run(request, asyncio.Event())]
    await engine.close()
    last = events[-1]
    assert isinstance(last, Embedded)
    ours = np.frombuffer(last.vectors, "<f4").reshape(64, 384)
    wanted = np.stack([np.frombuffer(b64decode(one), "<f4") for _, one in reference.vectors])
    assert np.linalg.norm(ours, axis=1) == pytest.approx(np.ones(64), abs=1e-5)
    cosines = (ours * wanted).sum(1)
    for (text, _), cosine in zip(reference.vectors, cosines, strict=True):
        assert cosine >= (ODD_COSINE_MIN if text in ODD else COSINE_MIN), text

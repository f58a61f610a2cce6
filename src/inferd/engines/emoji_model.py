"""The networks of `inferd/emoji-flow`: text and noise in, pictures of 48 × 48 out.

Imported in workers only. Every picture is computed alone, never in a batch: the networks round
their activations to 8 bits by the largest in a batch, so a picture would depend on its
neighbours, and the same seed would not give the same picture.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inferd.engines.base import Resources
from inferd.engines.encoder_model import EncoderModel, shaped
from inferd.engines.onnx import open_session
from inferd.errors import BadRequest

SIDE = 48
LATENT = 320
TEXT_TOKENS_MAX = 128

Floats = NDArray[np.float32]


class Steering(NamedTuple):
    """Which way a picture is drawn."""

    wanted: Floats
    """Of shape (384,)."""
    unwanted: Floats
    """The negative prompt, or zeros."""
    guidance: float


class EmojiModel:
    """Blocks; may be called from several threads."""

    def __init__(self, resources: Resources) -> None:
        # One thread each: the engine computes several steps side by side.
        self._velocity = open_session(resources.path("velocity"), 1)
        self._decoder = open_session(resources.path("decoder"), 1)
        self._words = EncoderModel(
            resources.path("text_model"), resources.path("tokenizer"), "mean", 1
        )
        self._mean = self._decode(np.zeros((1, LATENT), np.float32))[0]
        self._basis = self._measured_basis()
        self._inverse = self._basis.T / np.square(self._basis).sum(1)

    def _measured_basis(self) -> Floats:
        """The decoder's matrix. It is linear but for a clamp: the longer of two ways is true."""
        eye = np.eye(LATENT, dtype=np.float32)
        up, down = self._decode(eye) - self._mean, self._mean - self._decode(-eye)
        return cast("Floats", np.where(np.abs(up) > np.abs(down), up, down))

    def _decode(self, z: Floats) -> Floats:
        """Flat pixels from -1 to 1."""
        told = self._decoder.run({"z": z})[0]
        return np.asarray(told.reshape(len(z), -1) / 127.5 - 1, np.float32)

    def steering(self, prompt: str, negative: str, guidance: float) -> Steering:
        """What a prompt means. BadRequest for one that is too long."""
        return Steering(self._text(prompt), self._text(negative), guidance)

    def _text(self, text: str) -> Floats:
        if not text.strip():
            return np.zeros(self._words.dimensions, np.float32)
        ids = self._words.ids([text])[0]
        if len(ids) > TEXT_TOKENS_MAX:
            raise BadRequest(
                f"The prompt has {len(ids)} tokens; this model reads {TEXT_TOKENS_MAX}.",
                param="prompt",
            )
        return shaped(self._words.embed([ids]), None, normalize=True)[0]

    def noise(self, seed: int) -> Floats:
        """Where the drawing of this seed begins, of shape (1, 320)."""
        return np.random.default_rng(seed).standard_normal((1, LATENT)).astype(np.float32)

    def encode(self, picture: Image.Image) -> Floats:
        """The latent that comes nearest to a picture, of shape (1, 320)."""
        small = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        flat = np.asarray(small, np.float32).reshape(1, -1) / 127.5 - 1
        return ((flat - self._mean) @ self._inverse).astype(np.float32)

    def step(self, z: Floats, t: float, dt: float, steering: Steering) -> Floats:
        """One step along the path: Euler's, with classifier-free guidance."""
        text = np.stack([steering.wanted, steering.unwanted])
        feeds = {"z": np.repeat(z, 2, 0), "t": np.full(2, t, np.float32), "text": text}
        wanted, unwanted = self._velocity.run(feeds)[0]
        velocity = unwanted + steering.guidance * (wanted - unwanted)
        return (z + dt * velocity[None]).astype(np.float32)

    @staticmethod
    def ahead(z: Floats, after: Floats, t: float, dt: float) -> Floats:
        """Where the path ends if it stays as straight as this step, which led from z to after."""
        return (z + (1 - t) / dt * (after - z)).astype(np.float32)

    def picture(self, z: Floats) -> Image.Image:
        """What a latent shows, 48 × 48."""
        pixels = self._decoder.run({"z": z})[0][0]
        return Image.fromarray(np.asarray(pixels.round(), np.uint8))


def blend(a: Floats, b: Floats, share: float) -> Floats:
    """Between two meanings, on the sphere that texts lie on."""
    mixed = (1 - share) * a + share * b
    length = float(np.linalg.norm(mixed))
    return np.asarray(mixed / length if length else mixed, np.float32)


def circle(a: Floats, b: Floats, angle: float) -> Floats:
    """A point on a closed path through noise: as much noise everywhere."""
    return (np.cos(angle) * a + np.sin(angle) * b).astype(np.float32)

"""What a picture of diffusers is going to be, while it is drawn: as the model thinks at a step.

A scheduler's step guesses the finished latents on its way to the next noisy ones. The guess is
kept here and decoded as the pipeline decodes its last latents. Families whose latents are not
those of an `AutoencoderKL` are shown no previews. Imported in workers only.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from typing import Any

from PIL import Image

from inferd.tasks.text_to_image import preview_steps

_UNPACKS = ["latents", "height", "width", "vae_scale_factor"]


class Previews:
    """Those of one drawing."""

    def __init__(self, pipeline: Any, wanted: int, width: int, height: int) -> None:
        self._pipeline = pipeline
        decodes = type(getattr(pipeline, "vae", None)).__name__ == "AutoencoderKL"
        self._wanted = wanted if decodes and hasattr(pipeline, "image_processor") else 0
        self._sides = height, width
        self._guess: Any = None

    @contextmanager
    def watching(self) -> Generator[None]:
        """Note the scheduler's guess at each step; only if there is something to show."""
        scheduler = self._pipeline.scheduler
        if not self._wanted:
            yield
            return
        own = scheduler.step

        # Pipelines look at what a step takes.
        @wraps(own)
        def step(output: Any, t: Any, sample: Any, *more: Any, **options: Any) -> Any:
            told = own(output, t, sample, *more, **options)
            self._guess = _guess(scheduler, output, sample, told)
            return told

        scheduler.step = step
        try:
            yield
        finally:
            del scheduler.step

    def after(self, done: int, of: int) -> Image.Image | None:
        """The picture to show after so many steps, if one is due. Blocks."""
        if self._guess is None or done not in preview_steps(0, of, self._wanted):
            return None
        latents = self._unpacked(self._guess)
        return None if latents is None else _decoded(self._pipeline, latents)

    def _unpacked(self, latents: Any) -> Any:
        """Of shape (1, channels, height, width); None where the family has a shape of its own."""
        pipeline = self._pipeline
        if latents.ndim == 3 and hasattr(pipeline, "_unpack_latents"):
            # Nothing public does it.
            unpack = pipeline._unpack_latents
            if list(inspect.signature(unpack).parameters) != _UNPACKS:
                return None
            latents = unpack(latents, *self._sides, pipeline.vae_scale_factor)
        fits = latents.ndim == 4 and latents.shape[1] == pipeline.vae.config.latent_channels
        return latents if fits else None


def _guess(scheduler: Any, output: Any, sample: Any, told: Any) -> Any:
    """The finished latents; of a scheduler that does not guess, the noisy ones after its step."""
    if type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler":
        return sample - scheduler.sigmas[scheduler.step_index - 1] * output
    return told[1] if len(told) > 1 else told[0]


def _decoded(pipeline: Any, latents: Any) -> Image.Image:
    torch: Any = import_module("torch")
    vae, config = pipeline.vae, pipeline.vae.config
    kind = vae.dtype
    # As the pipelines do: some decoders overflow in 16 bits.
    upcast = kind == torch.float16 and getattr(config, "force_upcast", False)
    if upcast:
        vae.to(torch.float32)
    try:
        latents = latents.to(vae.dtype)
        scale: Any = config.scaling_factor
        shift: Any = getattr(config, "shift_factor", None) or 0
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is not None and std is not None:
            shift, deviation = (latents.new_tensor(one).view(1, -1, 1, 1) for one in (mean, std))
            scale = scale / deviation
        pixels = vae.decode(latents / scale + shift, return_dict=False)[0]
    finally:
        if upcast:
            vae.to(kind)
    picture: Image.Image = pipeline.image_processor.postprocess(pixels, output_type="pil")[0]
    return picture

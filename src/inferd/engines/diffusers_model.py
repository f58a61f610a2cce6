"""The border to torch and diffusers, which have no types that are of use: load, draw, film.

Imported in workers only. Weights are read from safetensors and nothing else; no code of a model's
folder is ever run, and nothing is fetched.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import msgspec
from PIL import Image

from inferd.catalog.card import ModelCard
from inferd.engines.diffusers_preview import Previews
from inferd.engines.encode_image import fitted
from inferd.errors import BadRequest, EngineFailed


class Tell(Protocol):
    """Called after each step, and again with a preview where one is due.

    What it raises ends the drawing.
    """

    def __call__(self, done: int, of: int, preview: Image.Image | None = None, /) -> None:
        """So many steps of so many are done."""
        ...


_INDEX_BYTES_MAX = 1 << 20
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class Wish(NamedTuple):
    """One picture or film."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    guidance: float
    seed: int
    image: Image.Image | None = None
    mask: Image.Image | None = None
    """White where `image` may change."""
    strength: float = 1.0
    frames: int = 1
    rate: int = 16
    previews: int = 0


class Pipelines:
    """The pipeline of a folder, and those that share its weights and start from a picture."""

    def __init__(self, card: ModelCard, folder: Path, threads: int) -> None:
        self._diffusers: Any = import_module("diffusers")
        kind = _checked(folder, self._diffusers)
        self._torch: Any = import_module("torch")
        self._torch.set_num_threads(threads)
        self._diffusers.utils.logging.set_verbosity_error()
        self._multiple = int(str(card.options.get("size_multiple", 16)))
        device = "cuda" if self._torch.cuda.is_available() else "cpu"
        own = "bfloat16" if device == "cuda" else "float32"
        dtype: Any = getattr(self._torch, str(card.options.get("dtype", own)))
        variant = card.options.get("variant")
        self._text: Any = self._loaded(kind, folder, torch_dtype=dtype, variant=variant).to(device)
        self._text.set_progress_bar_config(disable=True)
        if "callback_on_step_end" not in _takes(self._text):
            raise EngineFailed("This pipeline does not tell its steps, so it could not be stopped.")

    def _loaded(self, kind: Any, folder: Path, **options: Any) -> Any:
        try:
            return kind.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, **options
            )
        except Exception as error:
            # The library's errors have no common class but Exception.
            raise EngineFailed(
                "diffusers cannot load this model's files.", detail=repr(error)[:500]
            ) from error

    def draw(self, wish: Wish, tell: Tell) -> Image.Image:
        """One picture in the size that was asked for. Blocks. BadRequest for what it cannot."""
        width, height = self._sides(wish)

        def told(done: int, of: int, preview: Image.Image | None = None, /) -> None:
            tell(done, of, None if preview is None else _finished(wish, preview))

        if wish.image is None:
            options: dict[str, Any] = {"width": width, "height": height}
            return _finished(wish, self._run(self._text, wish, options, told)[0])
        if int(wish.steps * wish.strength) < 1:
            return fitted(wish.image, wish.width, wish.height)
        options = {
            "image": fitted(wish.image, width, height),
            "strength": wish.strength,
            "width": width,
            "height": height,
        }
        if wish.mask is not None:
            options["mask_image"] = wish.mask.resize((width, height))
        family = "Image2Image" if wish.mask is None else "Inpainting"
        return _finished(wish, self._run(self._sharing(family), wish, options, told)[0])

    def film(self, wish: Wish, tell: Tell) -> list[Image.Image]:
        """All frames. Blocks. BadRequest for what it cannot."""
        width, height = self._sides(wish)
        options: dict[str, Any] = {"width": width, "height": height, "num_frames": wish.frames}
        takes = _takes(self._text)
        if "frame_rate" in takes:
            options["frame_rate"] = wish.rate
        if wish.image is not None and "image" not in takes:
            raise BadRequest("This model takes no first frame.", param="image")
        if wish.image is None and "image" in takes:
            raise BadRequest("This model needs a first frame.", param="image")
        if wish.image is not None:
            options["image"] = fitted(wish.image, width, height)
        frames = self._run(self._text, wish, options, tell)
        return [fitted(frame, wish.width, wish.height) for frame in frames]

    def _sides(self, wish: Wish) -> tuple[int, int]:
        """Rounded up to what the network's strides allow."""
        step = self._multiple
        return -(-wish.width // step) * step, -(-wish.height // step) * step

    def _sharing(self, family: str) -> Any:
        try:
            made: Any = getattr(self._diffusers, f"AutoPipelineFor{family}").from_pipe(self._text)
        except ValueError:
            word = "a mask" if family == "Inpainting" else "an image"
            raise BadRequest(f"This model does not draw from {word}.", param="image") from None
        made.set_progress_bar_config(disable=True)
        return made

    def _run(
        self, pipeline: Any, wish: Wish, options: dict[str, Any], tell: Tell
    ) -> list[Image.Image]:
        takes = _takes(pipeline)
        previews = Previews(pipeline, wish.previews, options["width"], options["height"])

        def stepped(running: Any, index: int, _: Any, kept: dict[str, Any]) -> dict[str, Any]:
            done, of = index + 1, int(running.num_timesteps)
            tell(done, of)
            if preview := previews.after(done, of):
                tell(done, of, preview)
            return kept

        told: dict[str, Any] = {
            "prompt": wish.prompt,
            "num_inference_steps": wish.steps,
            "guidance_scale": wish.guidance,
            # On the CPU: the same noise on every kind of device.
            "generator": self._torch.Generator("cpu").manual_seed(wish.seed),
            "callback_on_step_end": stepped,
            "output_type": "pil",
            **_negative(wish, takes),
            **options,
        }
        with self._torch.inference_mode(), previews.watching():
            made: Any = pipeline(**{name: told[name] for name in told if name in takes})
        frames: Any = made.images if hasattr(made, "images") else made.frames[0]
        return cast("list[Image.Image]", list(frames))


def _finished(wish: Wish, drawn: Image.Image) -> Image.Image:
    """In the size that was asked for; where a mask says so, the old picture stays."""
    picture = fitted(drawn, wish.width, wish.height)
    if wish.image is None or wish.mask is None:
        return picture
    # What may not change is the caller's own pixels, not what became of them in latents.
    kept = fitted(wish.image, wish.width, wish.height)
    return Image.composite(picture, kept, wish.mask.resize(picture.size))


def _negative(wish: Wish, takes: set[str]) -> dict[str, Any]:
    if not wish.negative_prompt:
        return {}
    if "negative_prompt" not in takes or "true_cfg_scale" in takes:
        raise BadRequest("This model takes no negative prompt.", param="negative_prompt")
    if wish.guidance <= 1:
        raise BadRequest("A negative prompt needs guidance_scale above 1.", param="negative_prompt")
    return {"negative_prompt": wish.negative_prompt}


def _takes(pipeline: Any) -> set[str]:
    """Names of what the pipeline can be called with."""
    return set(inspect.signature(pipeline.__call__).parameters)


def _checked(folder: Path, library: Any) -> Any:
    """The class of the folder's pipeline. EngineFailed for what would run code of its own."""
    try:
        text = (folder / "model_index.json").read_bytes()[:_INDEX_BYTES_MAX]
        index = msgspec.json.decode(text, type=dict[str, Any])
    except (OSError, ValueError) as error:
        raise EngineFailed("The model's folder has no sound model_index.json.") from error
    name = index.get("_class_name")
    kind: Any = getattr(library, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, library.DiffusionPipeline)):
        raise EngineFailed("The model's pipeline is not one that diffusers knows.")
    parts = {
        part: cast("list[Any]", told) for part, told in index.items() if isinstance(told, list)
    }
    if not all(_known(told, library) for told in parts.values()):
        raise EngineFailed("The model brings code of its own, which is never run here.")
    for part in parts:
        place = folder / part
        pickled = any(True for pattern in _PICKLES for _ in place.glob(pattern))
        if pickled and not any(place.glob("*.safetensors")):
            raise EngineFailed(f"{part} has no safetensors; no other weights are read.")
    return kind


def _known(told: list[Any], library: Any) -> bool:
    """A part is [library, class] of diffusers or transformers, or [null, null]."""
    origin: Any = told[0] if told else None
    if origin is None or origin in ("diffusers", "transformers"):
        return True
    return isinstance(origin, str) and hasattr(library.pipelines, origin)

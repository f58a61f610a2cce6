"""One picture in, RGB pixels out. Imported in workers only.

Limits are checked on the header, before a pixel is decoded. What a library says about a broken
file is for the log; callers read one of a few fixed sentences.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageFile, ImageOps

from inferd.errors import BadRequest
from inferd.tasks.media import Media

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Pillow's readers that may see a caller's file; the rest is old, large or has had its holes."""
PIXELS_MAX = 50_000_000
"""150 MB as RGB."""
SIDE_MAX = 16_384


def decode_image(media: Media, *, param: str = "image") -> Image.Image:
    """The picture as RGB, turned as its EXIF says, on white where it is transparent.

    Of an animation the first frame. Raises BadRequest with `param`.
    """
    try:
        return _decoded(media.read(), param)
    except BadRequest:
        raise
    except Exception as error:
        # Pillow's readers raise a dozen types on a file that is not sound.
        raise BadRequest(
            f"{param} is not a sound picture.", param=param, detail=repr(error)[:500]
        ) from error


def _decoded(content: bytes, param: str) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow's own limit is below ours; what is merely odd is none of the log's business.
        warnings.simplefilter("ignore")
        picture: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        width, height = picture.size
        if width * height > PIXELS_MAX or max(width, height) > SIDE_MAX:
            raise BadRequest(
                f"{param} is {width} x {height} pixels; at most {SIDE_MAX} a side and "
                f"{PIXELS_MAX // 1_000_000} million in all are read.",
                param=param,
            )
        picture.load()
        return _opaque(ImageOps.exif_transpose(picture))


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        # Pillow would clip the 16 bits to 8, not scale them.
        picture = picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    clear = picture.convert("RGBA")
    ground = Image.new("RGBA", clear.size, "white")
    ground.alpha_composite(clear)
    return ground.convert("RGB")


# A file that ends early is an error, never a half grey picture.
ImageFile.LOAD_TRUNCATED_IMAGES = False
# PIXELS_MAX is ours to check, on the header, with a sentence of our own.
Image.MAX_IMAGE_PIXELS = None


def decode_mask(media: Media, *, param: str = "mask") -> Image.Image:
    """Where a picture may change, white on black: its transparent pixels, or its light ones."""
    try:
        return _mask(media.read(), param)
    except BadRequest:
        raise
    except Exception as error:
        # As above.
        raise BadRequest(
            f"{param} is not a sound picture.", param=param, detail=repr(error)[:500]
        ) from error


def _mask(content: bytes, param: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        if picture.width * picture.height > PIXELS_MAX or max(picture.size) > SIDE_MAX:
            raise BadRequest(f"{param} has too many pixels.", param=param)
        if not picture.has_transparency_data:
            return picture.convert("L")
        alpha = picture.convert("RGBA").getchannel("A")
        return alpha.point([255 - value for value in range(256)])

"""One picture in, RGB pixels out. Imported in workers only; blocks.

The file is opened in a decoder, a child process under limits of memory and time. There the limits
of the header are checked before a pixel is decoded. What a library says about a broken file is for
the log; callers read one of a few fixed sentences.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

from PIL import Image, ImageFile, ImageOps

from inferd.engines.decoder_pool import decoders
from inferd.engines.decoder_wire import DATA_BYTES_MAX, Job, Made
from inferd.errors import BadRequest
from inferd.tasks.media import Media

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "ICO", "PPM")
"""Pillow's readers that may see a caller's file (decision 0031); the rest runs programs (EPS), has
pages and scripts (PDF), is a large decoder with a history (JPEG 2000), or nobody sends it."""
_PLAIN_PNM = (b"P1", b"P2", b"P3", b"Pf", b"PF", b"Py")
PIXELS_MAX = 50_000_000
"""150 MB as RGB."""
SIDE_MIN, SIDE_MAX = 2, 16_384
SCAN_PIXELS = 10_000
"""What a scan costs however small it is, in pixels."""
SCANNED_PIXELS_MAX = 4_000_000_000
"""About six seconds of one core; a progressive picture of ten scans and 50 MP needs 0.5."""


CPU_SECONDS_MAX = 20
"""For one picture; the largest that are read take two."""


def decode_image(media: Media, *, param: str = "image") -> Image.Image:
    """The picture as RGB, turned as its EXIF says, on white where it is transparent.

    Of an animation the first frame. Raises BadRequest with `param`.
    """
    return _decoded(Job("picture", media, param, CPU_SECONDS_MAX))


def decode_mask(media: Media, *, param: str = "mask") -> Image.Image:
    """Where a picture may change, white on black: its transparent pixels, or its light ones."""
    return _decoded(Job("mask", media, param, CPU_SECONDS_MAX))


def _decoded(job: Job) -> Image.Image:
    pixels = bytearray()

    def keep(data: bytearray) -> None:
        if len(pixels) + len(data) > PIXELS_MAX * 3:
            raise ValueError("more pixels than can be")
        pixels.extend(data)

    made = decoders("picture").run(job, keep)
    size = (made.width, made.height)
    return Image.frombytes("RGB" if job.kind == "picture" else "L", size, pixels)


def decode_here(job: Job, send: Callable[[bytes], None]) -> Made:
    """In the decoder: the pixels, some rows at a time. Raises BadRequest, MemoryError."""
    convert, mode = (_opaque, "RGB") if job.kind == "picture" else (_light, "L")
    picture = _guarded(job.media, job.param, turn=job.kind == "picture")
    width, height = picture.size
    rows = max(1, DATA_BYTES_MAX // (width * len(mode)))
    for top in range(0, height, rows):
        # Only the picture itself is ever there as a whole.
        strip = picture.crop((0, top, width, min(height, top + rows)))
        send(convert(strip).tobytes())
    return Made(mode, width, height)


def warm() -> None:
    """In the decoder, before its memory is limited: load all that it needs."""
    Image.init()


def _guarded(media: Media, param: str, *, turn: bool) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # What is merely odd is none of the log's business.
            warnings.simplefilter("ignore")
            content = media.read()
            # Those in text are decoded far too slowly.
            formats = FORMATS[:-1] if content.startswith(_PLAIN_PNM) else FORMATS
            picture = Image.open(io.BytesIO(content), formats=formats)
            _check(picture, content, param)
            picture.load()
            # An icon's directory may say less than the picture in it.
            _check(picture, content, param)
            if turn:
                ImageOps.exif_transpose(picture, in_place=True)
            return picture
    except (BadRequest, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        # Pillow itself refuses a header with twice our limit.
        raise _too_large(param, "far too large") from error
    except Exception as error:
        # Pillow's readers raise a dozen types on a file that is not sound.
        raise BadRequest(
            f"{param} is not a sound picture.", param=param, detail=repr(error)[:500]
        ) from error


def _check(picture: Image.Image, content: bytes, param: str) -> None:
    """The header's limits; nothing is decoded yet."""
    width, height = picture.size
    pixels = width * height
    if min(width, height) < SIDE_MIN:
        raise BadRequest(
            f"{param} is {width} x {height} pixels; at least {SIDE_MIN} a side are read.",
            param=param,
        )
    if pixels > PIXELS_MAX or max(width, height) > SIDE_MAX:
        raise _too_large(param, f"{width} x {height} pixels")
    if content.startswith(b"\xff\xd8"):
        # A JPEG of 50 MB may hold half a million scans, each as dear as a whole picture.
        scans = content.count(b"\xff\xda")
        if scans * (pixels + SCAN_PIXELS) > SCANNED_PIXELS_MAX:
            raise BadRequest(f"{param} has too many scans.", param=param)


def _too_large(param: str, size: str) -> BadRequest:
    return BadRequest(
        f"{param} is {size}; at most {SIDE_MAX} a side and {PIXELS_MAX // 1_000_000} million "
        "pixels in all are read.",
        param=param,
    )


def _light(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("L")
    alpha = picture.convert("RGBA").getchannel("A")
    return alpha.point([255 - value for value in range(256)])


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode == "I" or picture.mode.startswith("I;16"):
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
# Readers that make room for a picture at once look at this before they do.
Image.MAX_IMAGE_PIXELS = PIXELS_MAX

"""Pictures to files. Imported in workers only."""

from __future__ import annotations

import io

from PIL import Image

from inferd.tasks.text_to_image import ImageFormat

MIMES: dict[ImageFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def encode_image(picture: Image.Image, image_format: ImageFormat) -> bytes:
    """One encoded picture."""
    sink = io.BytesIO()
    if image_format == "png":
        picture.save(sink, "PNG", compress_level=4)
    else:
        picture.convert("RGB").save(sink, image_format.upper(), quality=92)
    return sink.getvalue()


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture as large as it fits into width × height, on white, in the middle."""
    side = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * side)), max(1, round(picture.height * side)))
    large = picture.resize(size, Image.Resampling.BICUBIC)
    if size == (width, height):
        return large
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(large, ((width - size[0]) // 2, (height - size[1]) // 2))
    return canvas

"""Frames to an MP4 that browsers play. Imported in workers only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

MIME = "video/mp4"
_TO_YUV = np.array(
    [[0.2126, 0.7152, 0.0722], [-0.114572, -0.385428, 0.5], [0.5, -0.454153, -0.045847]],
    np.float32,
)
"""Red, green and blue to brightness and two colours, from 0 to 1 (ITU-R BT.709-6, section 3)."""
_OPTIONS = {
    "crf": "20",
    "threads": "1",
    "colorspace": "bt709",
    "color_primaries": "bt709",
    "color_trc": "bt709",
    "color_range": "tv",
}


def encode_video(frames: Iterable[Image.Image], rate: int) -> bytes:
    """H.264 in MP4, the index in front so that playing starts before the end is there.

    All frames have one size, even in both directions. The same frames give a film that looks the
    same, though not always the same bytes: x264 varies by where its buffers lie.
    """
    # Putting the index in front means writing the file anew: the library needs a real one.
    with tempfile.TemporaryDirectory(prefix="inferd-film-") as folder:
        path = Path(folder) / "film.mp4"
        _write(path, frames, rate)
        return path.read_bytes()


def _write(path: Path, frames: Iterable[Image.Image], rate: int) -> None:
    container: Any = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
    stream: Any = None
    for picture in frames:
        if stream is None:
            stream = container.add_stream("libx264", rate=rate, options=_OPTIONS)
            stream.width, stream.height = picture.size
            stream.pix_fmt = "yuv420p"
        frame: Any = av.VideoFrame.from_ndarray(_planes(picture), format="yuv420p")
        container.mux(stream.encode(frame))
    if stream is not None:
        container.mux(stream.encode(None))
    container.close()


def _planes(picture: Image.Image) -> NDArray[np.uint8]:
    """The planes of yuv420p below each other, of shape (height × 3 / 2, width).

    In the colours that players assume of large films, and that the file names.
    """
    yuv = (np.asarray(picture.convert("RGB"), np.float32) / 255) @ _TO_YUV.T
    height, width = yuv.shape[:2]
    light = 16 + 219 * yuv[..., 0]
    halves = yuv[..., 1:].reshape(height // 2, 2, width // 2, 2, 2).mean((1, 3))
    colours = np.moveaxis(128 + 224 * halves, 2, 0)
    flat = np.concatenate([light.reshape(-1), colours.reshape(-1)])
    return flat.round().astype(np.uint8).reshape(height * 3 // 2, width)

"""Frames to an MP4 that browsers play. Imported in workers only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

MIME = "video/mp4"


def encode_video(frames: Iterable[Image.Image], rate: int) -> bytes:
    """H.264 in MP4, the index in front so that playing starts before the end is there.

    All frames have one size, even in both directions.
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
            stream = container.add_stream("libx264", rate=rate, options={"crf": "20"})
            stream.width, stream.height = picture.size
            stream.pix_fmt = "yuv420p"
        frame: Any = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
        container.mux(stream.encode(frame))
    if stream is not None:
        container.mux(stream.encode(None))
    container.close()

"""Words for pictures, recordings and films: what smolcaption.py puts into a prompt.

Imported in workers only: it brings numpy, Pillow, ONNX Runtime and faster-whisper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from inferd.catalog.card import ModelCard
from inferd.engines.base import Resources
from inferd.engines.classifier_model import ClassifierModel
from inferd.engines.decode_audio import decode_audio
from inferd.engines.decode_image import decode_image
from inferd.engines.decode_video import Film, Wish, decode_video
from inferd.engines.ocr_model import DETECTOR, OcrModel
from inferd.engines.onnx import device_of
from inferd.engines.whisper_model import RATE, Left, WhisperModel
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.media import Media
from inferd.tasks.speech_recognition import SpeechFilter, TranscriptionRequest

if TYPE_CHECKING:
    from PIL.Image import Image

Stopped = Callable[[], bool]

LABELS = 2
WRITING_MIN, WRITING_MUCH = 4, 40
"""Letters and digits: fewer are no writing, so many make the picture a page, whose classes
(an envelope, a web site) would mislead."""
FRAME_BYTES = 40
"""Of what is said around a text that is cut."""
PICTURE_BYTES = 1024
"""The most that is said of one picture, and of the pictures of one film."""
FRAMES = 4
SECONDS_MAX = 120.0
FRAME_PIXELS = 640 * 480
EAR = "ear/"
"""Before the roles of Whisper's files."""


class Describer:
    """Says what a picture, a recording or a film holds. Thread-safe."""

    def __init__(self, card: ModelCard, resources: Resources) -> None:
        paths = resources.path("classifier"), resources.path("classes")
        self._card = card
        self._model = ClassifierModel(card, *paths, resources.threads)
        self._ocr: OcrModel | None = (
            OcrModel(resources, device_of(card)) if DETECTOR in resources.files else None
        )
        self._ear = _ear(card, resources)
        self._labels = int(str(card.options.get("picture_labels", LABELS)))
        frames = int(str(card.options.get("video_frames", FRAMES)))
        self._seconds_max = float(str(card.options.get("media_seconds_max", SECONDS_MAX)))
        self._wish = Wish(frames, FRAME_PIXELS, self._seconds_max)
        self._bytes_max = card.media_tokens_max()

    def words(self, media: Media, stopped: Stopped) -> str | None:
        """Lines for the prompt; None once `stopped`. Blocks; BadRequest for what is not sound."""
        if media.kind not in self._card.modalities:
            raise BadRequest(f"This model takes no {media.kind}.", param="messages")
        if media.kind == "image":
            return self._picture(decode_image(media), stopped)
        if media.kind == "audio":
            return self._recording(media, stopped)
        film = decode_video(media, self._wish)
        return (
            self._film(media, film, stopped) if film.pictures else self._recording(media, stopped)
        )

    def _picture(self, picture: Image, stopped: Stopped) -> str | None:
        writing = self._writing(picture, stopped)
        if writing is None:
            return None
        text = ""
        if _letters(writing) < WRITING_MUCH:
            names = ", ".join(dict.fromkeys(self._classes(picture)))
            text = f"(Attached picture: a photo of {names}.)\n"
        if _letters(writing) >= WRITING_MIN:
            room = min(PICTURE_BYTES, self._bytes_max) - len(text)
            text += f"The attached picture says:\n\n{_cut(writing, room)}\n\n"
        return text

    def _recording(self, media: Media, stopped: Stopped) -> str | None:
        said = self._heard(media, stopped)
        if said is None:
            return None
        if not said:
            return "(Attached recording: nobody speaks in it.)\n"
        return f"The attached recording says:\n\n{_cut(said, self._bytes_max)}\n\n"

    def _film(self, media: Media, film: Film, stopped: Stopped) -> str | None:
        """Its classes in their order, what is written in it, what is said in it."""
        names: list[str] = []
        rows: list[str] = []
        for picture in film.pictures:
            writing = self._writing(picture, stopped)
            if writing is None:
                return None
            names += self._classes(picture)
            rows += writing.splitlines()
        room = min(PICTURE_BYTES, self._bytes_max)
        shown = _cut(", ".join(dict.fromkeys(names)), room // 2)
        text = f"(Attached film: it shows {shown}.)\n"
        writing = "\n".join(dict.fromkeys(rows))
        if _letters(writing) >= WRITING_MIN:
            text += f"In the attached film is written:\n\n{_cut(writing, room - len(text))}\n\n"
        if film.sound and self._ear is not None:
            said = self._heard(media, stopped)
            if said is None:
                return None
            if said:
                room = self._bytes_max - len(text.encode())
                text += f"In the attached film is said:\n\n{_cut(said, room)}\n\n"
        return text

    def _classes(self, picture: Image) -> list[str]:
        pixels = self._model.input.pixels(picture)
        found = self._model.likeliest(self._model.probabilities([pixels])[0], self._labels)
        # A class has several names, the plainest first.
        return [label.label.partition(",")[0] for label in found]

    def _writing(self, picture: Image, stopped: Stopped) -> str | None:
        """Its rows; None once stopped."""
        if stopped():
            return None
        if self._ocr is None:
            return ""
        page = self._ocr.pages(picture, stopped)
        if page is None:
            return None
        return "\n".join(" ".join(line.text for line in row) for row in page)

    def _heard(self, media: Media, stopped: Stopped) -> str | None:
        """What is said in a recording or film; None once stopped."""
        if self._ear is None:
            raise BadRequest(f"This model takes no {media.kind}.", param="messages")
        samples = decode_audio(media, RATE, self._seconds_max)
        # Without the filter, Whisper hears words in silence and in music.
        request = TranscriptionRequest(
            self._card.name, media, self._seconds_max, vad=SpeechFilter(), temperatures=(0.0,)
        )
        hearing = self._ear.hearing(samples, request, stopped)
        try:
            return "".join(one.text for one in hearing.segments(hearing.language())).strip()
        except Left:
            return None


def _ear(card: ModelCard, resources: Resources) -> WhisperModel | None:
    """Whisper, where the card has its files. Raises EngineFailed."""
    files = {role: path for role, path in resources.files.items() if role.startswith(EAR)}
    if not files:
        if "audio" in card.modalities:
            raise EngineFailed(f"The card takes audio and has no files with the role {EAR}….")
        return None
    folder = msgspec.structs.replace(resources, files=files).folder() / EAR
    return WhisperModel(folder, resources.threads, "int8", "cpu")


def _letters(text: str) -> int:
    return sum(one.isalnum() for one in text)


def _cut(text: str, room: int) -> str:
    """No more than there is room for, with what is said around it."""
    return text.encode()[: max(0, room - FRAME_BYTES)].decode("utf-8", "ignore")

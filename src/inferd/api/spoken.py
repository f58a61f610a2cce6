"""What the dialects of text to speech share: voices, formats, raw audio."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from inferd.access.voices import VoiceNotFound
from inferd.admission.work import Work
from inferd.api.errors import stream_event
from inferd.api.exchange import Exchange
from inferd.api.media import MediaDoor
from inferd.api.services import Services
from inferd.api.single import Headers
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest, InferdError
from inferd.tasks.base import Chunk
from inferd.tasks.every import Ending, Event
from inferd.tasks.media import Media
from inferd.tasks.text_to_speech import AudioFormat

VOICES_MAX = 8
ADDED = "voice_"
"""How names of voices begin that accounts have added."""
_VOICE = re.compile(r"[A-Za-z0-9_.-]{1,64}")

MIMES: dict[AudioFormat, bytes] = {
    "wav": b"audio/wav",
    "mp3": b"audio/mpeg",
    "opus": b"audio/ogg",
    "flac": b"audio/flac",
    "pcm": b"audio/pcm",
}
OPENAI_VOICES = {
    "alloy": "af_alloy",
    "ash": "am_michael",
    "ballad": "bm_fable",
    "coral": "af_aoede",
    "echo": "am_echo",
    "fable": "bm_fable",
    "nova": "af_nova",
    "onyx": "am_onyx",
    "sage": "af_sarah",
    "shimmer": "af_bella",
    "verse": "am_puck",
}
"""OpenAI's names, and Kokoro's voice of the same name or the nearest kind."""


class Chosen(NamedTuple):
    """In which voice a text is spoken: names that the model knows, or recordings of another."""

    names: tuple[str, ...] = ()
    recordings: tuple[Media, ...] = ()


async def chosen_voice(
    exchange: Exchange,
    services: Services,
    card: ModelCard,
    given: str | Sequence[str] | None,
    param: str,
) -> Chosen:
    """A voice that the caller's account has added, or names of the model's own.

    Raises what `voices` does; BadRequest for an added one where the model takes none.
    """
    added = given if isinstance(given, str) or given is None else "+".join(given)
    if added is None or not added.startswith(ADDED):
        return Chosen(voices(card, given, param))
    async with services.voices.recordings(exchange.caller.account_id, added) as found:
        if not card.options.get("clones"):
            raise BadRequest(
                f"The model {card.name} speaks in its own voices only: GET /v1/voices lists them.",
                param=param,
            )
        door = MediaDoor(exchange, services)
        kept = [
            await door.keep([one.content], len(one.content), "audio", one.mime) for one in found
        ]
    return Chosen((), tuple(kept))


def voices(card: ModelCard, given: str | Sequence[str] | None, param: str) -> tuple[str, ...]:
    """Names of voices: one, several, or several joined with `+`.

    OpenAI's names, which its clients must send, mean the default where a model has no like voice.
    Raises VoiceNotFound for a name that the card does not list; a card without a list leaves it to
    its engine. BadRequest for too many.
    """
    if given is None or given == "":
        return ()
    listed = given.split("+") if isinstance(given, str) else list(given)
    known = card.options.get("voices")
    if isinstance(known, list) and {*listed} <= {*OPENAI_VOICES} - {*known}:
        listed = [name for name in listed if OPENAI_VOICES[name] in known]
    names = [OPENAI_VOICES.get(name.strip(), name.strip()) for name in listed]
    if isinstance(known, list):
        for name in names:
            if name not in known:
                raise VoiceNotFound(
                    f"There is no voice {name[:64]!r}. There are {', '.join(known)}.", param=param
                )
    if len(names) > VOICES_MAX or not all(_VOICE.fullmatch(name) for name in names):
        raise BadRequest(f"A voice is a name, or up to {VOICES_MAX} of them.", param=param)
    return tuple(names)


class RawAudio:
    """Sends the audio itself, as it is spoken."""

    def __init__(self, audio_format: AudioFormat, file_name: str = "speech") -> None:
        self._format: AudioFormat = audio_format
        self._file_name = file_name

    def say(self, event: Event, work: Work) -> bytes:
        """The next bytes of sound."""
        return event.data if isinstance(event, Chunk) else b""

    def last(self, ending: Ending, work: Work) -> bytes:
        """All of it was sent."""
        return b""

    def failed(self, error: InferdError) -> bytes:
        """Never asked: raw audio has no place for words."""
        return stream_event(error)

    def headers(self) -> Headers:
        """The type of the audio, and a name to save it under."""
        name = f"{self._file_name}.{'ogg' if self._format == 'opus' else self._format}"
        return [
            (b"content-type", MIMES[self._format]),
            (b"content-disposition", f'attachment; filename="{name}"'.encode()),
        ]


class WholeAudio(RawAudio):
    """Sends the audio itself once all of it is there, so that a WAV says how long it is."""

    def __init__(self, audio_format: AudioFormat) -> None:
        super().__init__(audio_format)
        self._audio = bytearray()

    def say(self, event: Event, work: Work) -> bytes:
        """Nothing before the end."""
        self._audio += super().say(event, work)
        return b""

    def last(self, ending: Ending, work: Work) -> bytes:
        """All of it."""
        return bytes(whole_wav(self._audio) if self._format == "wav" else self._audio)


def whole_wav(audio: bytearray) -> bytearray:
    """A WAV whose header says how long it is: now that is known."""
    size = len(audio) - 44
    audio[4:8] = (size + 36).to_bytes(4, "little")
    audio[40:44] = size.to_bytes(4, "little")
    return audio

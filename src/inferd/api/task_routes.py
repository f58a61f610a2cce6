"""The routes of every task but text generation."""

from __future__ import annotations

from inferd.api.cohere.rerank import RerankIn, RerankOut, rerank, rerank_v2
from inferd.api.elevenlabs.speech import ElevenLabsSpeechIn, elevenlabs_speech
from inferd.api.elevenlabs.voices import (
    Voice,
    VoiceIn,
    Voices,
    change_voices,
    list_voices,
    remove_voice,
    show_voice,
)
from inferd.api.openai.embeddings import EmbeddingsIn, EmbeddingsOut, embeddings
from inferd.api.openai.images import (
    ImageEditIn,
    ImageGenerationIn,
    ImagesOut,
    ImageVariationIn,
    edits,
    generations,
    show_image,
    variations,
)
from inferd.api.openai.speech import SpeechIn, speech
from inferd.api.openai.transcriptions import (
    TranscriptionIn,
    VerboseOut,
    transcriptions,
    translations,
)
from inferd.api.openai.videos import VideoIn, VideoOut, create_video, show_video
from inferd.api.routes import Route, both

__all__ = ["task_routes"]


def task_routes() -> list[Route]:
    """What `table.ROUTES` takes over."""
    return [
        *both("POST", "/embeddings", embeddings, "Embed texts", EmbeddingsIn, EmbeddingsOut),
        *both("POST", "/rerank", rerank, "Sort documents by a query", RerankIn, RerankOut),
        Route(
            "POST",
            "/v2/rerank",
            rerank_v2,
            "inference",
            "openai",
            "Sort documents by a query, as Cohere's clients ask",
            RerankIn,
            RerankOut,
        ),
        *both(
            "POST",
            "/audio/transcriptions",
            transcriptions,
            "Write down what is said",
            TranscriptionIn,
            VerboseOut,
        ),
        *both(
            "POST",
            "/audio/translations",
            translations,
            "Write down what is said, in English",
            TranscriptionIn,
            VerboseOut,
        ),
        *both("POST", "/audio/speech", speech, "Speak a text: raw audio", SpeechIn),
        *_elevenlabs(),
        *_images(),
        *both("POST", "/videos", create_video, "Begin a film", VideoIn, VideoOut),
        *both("GET", "/videos/{rest}", show_video, "A film; …/content: the MP4", None, VideoOut),
    ]


def _images() -> list[Route]:
    at = "/images"
    return [
        *both("POST", f"{at}/generations", generations, "Draw", ImageGenerationIn, ImagesOut),
        *both("POST", f"{at}/edits", edits, "Draw on from a picture", ImageEditIn, ImagesOut),
        *both(
            "POST",
            f"{at}/variations",
            variations,
            "Draw something like a picture",
            ImageVariationIn,
            ImagesOut,
        ),
        Route("GET", f"/v1{at}/{{rest}}", show_image, "public", "openai", "A picture, for a day"),
    ]


def _elevenlabs() -> list[Route]:
    shape, path = "elevenlabs", "/v1/voices"
    speak = "Speak a text, as ElevenLabs' clients ask; …/stream too"
    return [
        Route(
            "POST",
            "/v1/text-to-speech/{rest}",
            elevenlabs_speech,
            "inference",
            shape,
            speak,
            ElevenLabsSpeechIn,
        ),
        Route("GET", path, list_voices, "inference", shape, "All voices", gives=Voices),
        Route("GET", f"{path}/{{rest}}", show_voice, "inference", shape, "One voice", gives=Voice),
        Route(
            "POST",
            f"{path}/{{rest}}",
            change_voices,
            "token",
            shape,
            "add: a voice from recordings; {voice_id}/edit: another name",
            VoiceIn,
            Voice,
        ),
        Route("DELETE", f"{path}/{{rest}}", remove_voice, "token", shape, "Forget an added voice"),
    ]

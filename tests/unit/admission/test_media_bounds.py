"""Money set aside for what a chat holds besides text."""

from __future__ import annotations

from inferd.admission.bounds import most
from inferd.tasks.media import Media, MediaKind
from inferd.tasks.text_generation import ChatPrompt, Message, Placed, TextGenerationRequest
from tests.gateway import echo_card


def input_tokens(*kinds: MediaKind, **options: int) -> int:
    card = echo_card(modalities=("image", "audio", "video"), options=options)
    media = tuple(Placed(0, Media(kind, "", 1, data=b"x")) for kind in kinds)
    prompt = ChatPrompt((Message("user", "", media=media),))
    return most(TextGenerationRequest("test/echo", prompt), card).input_tokens


def test_each_kind_is_bounded_by_its_own_option_or_by_that_of_all() -> None:
    options = {"media_tokens_max": 10, "video_tokens_max": 300}
    text = input_tokens(**options)
    assert input_tokens("image", "audio", "video", **options) == text + 10 + 10 + 300
    assert input_tokens("video", media_tokens_max=10) == text + 10

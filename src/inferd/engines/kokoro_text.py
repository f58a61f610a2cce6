"""Text on its way to Kokoro: what can be read aloud."""

from __future__ import annotations

import unicodedata

from inferd.errors import BadRequest

LANGUAGES = ("en", "en-us", "en-gb")
"""All are read with the American dictionary, the only one without GPL parts that is packaged."""


def check_language(language: str | None, text: str) -> None:
    """Raise BadRequest for what is not English, and for what is empty."""
    if language is not None and language.lower() not in LANGUAGES:
        raise BadRequest(
            f"This model speaks English here ({', '.join(LANGUAGES)}).", param="language"
        )
    if not text.strip():
        raise BadRequest("The text is empty.", param="input")
    strange = next((one for one in text if one.isalpha() and not _latin(one)), None)
    if strange is not None:
        raise BadRequest(
            f"This model speaks English here and cannot read the letter {strange!r}.",
            param="input",
        )


def _latin(letter: str) -> bool:
    if letter.isascii():
        return True
    name = unicodedata.name(letter, "")
    # ª and º, and the letters of mathematics and of wide type, are Latin ones in other dress.
    plain = unicodedata.normalize("NFKC", letter)
    return "LATIN" in name or "MODIFIER LETTER" in name or plain.isascii()

"""Log-probabilities in OpenAI's two shapes: of chat, and of plain completions."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from inferd.tasks.text_generation import Token


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that could have stood there."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob, frozen=True):
    """A token of the answer; natural logarithms, of the model's own distribution."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """Those of a chat choice, or of one chunk of it."""

    content: list[TokenLogprob]


class CompletionLogprobs(msgspec.Struct, frozen=True):
    """Those of a completion's choice, or of one chunk of it, as parallel lists."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """None: the first token of a prompt, or inside of a character."""
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]
    """Where each token begins, in characters from the start of the choice's text."""


def chat_logprobs(tokens: Sequence[Token]) -> ChatLogprobs:
    """Of the tokens that have one: inside of a character only the last has."""
    return ChatLogprobs(
        [
            TokenLogprob(
                token.text,
                token.logprob,
                list(token.text.encode("utf-8", "replace")),
                [
                    TopLogprob(text, logprob, list(text.encode("utf-8", "replace")))
                    for _, text, logprob in token.top
                ],
            )
            for token in tokens
            if token.logprob is not None
        ]
    )


class CompletionTokens:
    """Gathers the tokens of one choice."""

    def __init__(self, top: int, *, as_ids: bool) -> None:
        self._top = top
        self._as_ids = as_ids
        self._offset = 0

    def take(self, tokens: Sequence[Token]) -> CompletionLogprobs:
        """The logprobs of the tokens that come next."""
        offsets: list[int] = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.text)
        return CompletionLogprobs(
            tokens=[self._name(token.id, token.text) for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[self._alternatives(token) for token in tokens] if self._top else None,
            text_offset=offsets,
        )

    def _alternatives(self, token: Token) -> dict[str, float] | None:
        if token.logprob is None:
            return None
        found = {self._name(id_, text): logprob for id_, text, logprob in token.top}
        # OpenAI lists the chosen token too, even when it is not among the likeliest.
        found.setdefault(self._name(token.id, token.text), token.logprob)
        return found

    def _name(self, id_: int | None, text: str) -> str:
        return f"token_id:{id_}" if self._as_ids and id_ is not None else text

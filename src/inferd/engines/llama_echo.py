"""The prompt as part of the answer (`echo`), with the logprob of each of its tokens if asked for.

llama.cpp reports logprobs of what it generates and of nothing else. So each prompt token is
generated once: from the tokens before it, with a bias that no other token can beat; the logprob
that it reports is the model's own, before the bias. One step for each token.
"""

from __future__ import annotations

import threading

import msgspec

from inferd.engines.llama_choice import Chunk, LlamaServer, token_of
from inferd.engines.llama_slots import Slot
from inferd.engines.llama_tokens import LlamaTokens
from inferd.errors import EngineFailed
from inferd.tasks.text_generation import Token

_CERTAIN = 1.0e6
"""Added to a logit: far above any model's, and far below where floats lose small differences."""


class Echo(msgspec.Struct, frozen=True):
    """A prompt, to be said before the answer."""

    text: str
    tokens: tuple[Token, ...] = ()


def echo_of(tokens: LlamaTokens, prompt: str | tuple[int, ...]) -> tuple[tuple[int, ...], Echo]:
    """The ids of a prompt as llama.cpp will read it, and what is said of it. Blocks."""
    if isinstance(prompt, str):
        pieces = tokens.tokenize(prompt, add_special=True)
        return tuple(id_ for id_, _ in pieces), Echo(
            prompt, tuple(Token(id_, text) for id_, text in pieces)
        )
    found = tuple(Token(id_, tokens.detokenize((id_,))) for id_ in prompt)
    return prompt, Echo(tokens.detokenize(prompt), found)


class PromptScorer:
    """Finds the logprobs of a prompt's tokens. Runs in a thread."""

    def __init__(self, server: LlamaServer, slot: Slot, top: int) -> None:
        self.cancel = threading.Event()
        self.scored = 0
        """Tokens whose logprob is known."""
        self._server = server
        self._slot = slot
        self._top = top

    def score(self, said: tuple[Token, ...], ids: tuple[int, ...]) -> tuple[Token, ...]:
        """The tokens with their logprobs; the first has none. Ends early when cancelled."""
        scored = [said[0]]
        for at in range(1, len(ids)):
            if self.cancel.is_set():
                break
            entry = self._one(ids, at)
            token = token_of(entry, said[at].text, lists_top=self._top > 0)
            scored.append(token)
            self.scored = at
        return tuple(scored)

    def _one(self, ids: tuple[int, ...], at: int) -> Chunk:
        answers: list[Chunk] = []

        def keep(chunk: Chunk) -> bool:
            answers.append(chunk)
            return False

        body: Chunk = {
            "prompt": list(ids[:at]),
            "max_tokens": 1,
            "stream": False,
            "temperature": 0.0,
            "n_probs": max(1, self._top),
            "logit_bias": [[ids[at], _CERTAIN]],
            "id_slot": self._slot.index,
            # Whatever lay in the slot belongs to somebody else, until we have been here once.
            "cache_prompt": self._slot.reuse or at > 1,
        }
        self._server.handle_completions(body, keep)
        try:
            entry: Chunk = answers[-1]["choices"][0]["logprobs"]["content"][0]
        except (IndexError, KeyError, TypeError) as error:
            raise EngineFailed(
                "llama.cpp could not score the prompt.", detail=str(answers)[:300]
            ) from error
        if int(entry["id"]) != ids[at]:
            raise EngineFailed("llama.cpp scored another token than the prompt's.")
        return entry

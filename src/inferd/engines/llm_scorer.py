"""How well a document answers a query, by what a language model thinks of both.

judge   logit("Yes") - logit("No") after the question whether the document answers the query
gain    by how much the query makes the document likelier: the sum over its tokens of
        log P(token | query, before) - log P(token | before), over the square root of their number

    score = sigmoid(judge_weight x judge + gain_weight x gain + offset)

Both come from one forward pass of each prompt: the hidden states are llama.cpp's, the logits of
the tokens in question are made here. A score depends on its pair alone. Imported in workers only.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np

from inferd.catalog.card import ModelCard
from inferd.engines.gguf_rows import output_rows
from inferd.engines.llama_hidden import Hidden, hidden_states
from inferd.engines.llama_tokens import LlamaListener, LlamaTokens
from inferd.engines.llm_prompts import Ids, Sequence, Template, ids_of
from inferd.errors import ContextLengthExceeded, EngineFailed

_LOGIT_ROWS = 64
"""Tokens whose logits are made at once: a large vocabulary takes 40 MB for these."""


class Pair(msgspec.Struct, frozen=True):
    """One document and its query, as the model reads them."""

    prompts: tuple[Sequence, ...]
    """judge; then, if the gain counts: with the query, without it."""

    def tokens(self) -> int:
        """What is computed for it."""
        return sum(len(prompt.ids) for prompt in self.prompts)


class LlmScorer:
    """One loaded language model as a judge. `score` blocks."""

    def __init__(self, card: ModelCard, model: Path, listener: LlamaListener) -> None:
        options = card.options
        self._context = card.context_length
        self._listener = listener
        self._tokens = LlamaTokens(listener, 0)
        self._weights = [
            float(str(options.get(name, default)))
            for name, default in (("judge_weight", 1), ("gain_weight", 0), ("offset", 0))
        ]
        self._instruction = str(options.get("instruction", ""))
        roles = ("judge",) if self._weights[1] == 0 else ("judge", "given", "alone")
        self._templates = [
            Template(self._tokens, str(options.get(role, "")), role) for role in roles
        ]
        words = [self._word(str(options.get(role, role.capitalize()))) for role in ("yes", "no")]
        ends = output_rows(model, words)
        self._verdict = ends[0] - ends[1]
        self._output = output_rows(model) if len(roles) > 1 else None
        self.takes_instruction = self._templates[0].takes_instruction

    def _word(self, word: str) -> int:
        ids = ids_of(self._tokens, word).plain
        if len(ids) != 1:
            raise EngineFailed(f"The card's answer {word!r} is not one token of this model.")
        return ids[0]

    def pairs(
        self, pairs: list[tuple[str, str]], instruction: str | None, document_max: int | None = None
    ) -> list[Pair]:
        """Tokenised; a document is cut to `document_max` tokens and to what fits.

        Raises ContextLengthExceeded. Blocks.
        """
        told = ids_of(self._tokens, instruction or self._instruction)
        known: dict[str, Ids] = {}
        found: list[Pair] = []
        for query, document in pairs:
            if query not in known:
                known[query] = ids_of(self._tokens, query)
            # Few tokens are as long as that: what is behind is cut anyway.
            text = ids_of(self._tokens, document[: 16 * self._context])
            values = {"query": known[query], "document": text, "instruction": told}
            found.append(self._pair(values, document_max or self._context))
        return found

    def _pair(self, values: dict[str, Ids], document_max: int) -> Pair:
        around = max(template.literal for template in self._templates)
        room = self._context - around - len(values["query"].spaced)
        room -= len(values["instruction"].spaced) if self.takes_instruction else 0
        if room < self._context // 4:
            raise ContextLengthExceeded(
                f"The query has {len(values['query'].plain)} tokens, which leaves too little of "
                f"the {self._context} that the model reads at once for a document.",
                param="query",
            )
        kept = min(room, document_max)
        return Pair(tuple(template.fill(values, kept) for template in self._templates))

    def score(self, pairs: list[Pair]) -> list[float]:
        """One score in (0, 1) for each. Blocks."""
        return [self._score(pair) for pair in pairs]

    def _score(self, pair: Pair) -> float:
        # One call for each pair: how llama.cpp rounds depends on what it computes together.
        hidden = hidden_states(self._listener, [prompt.ids for prompt in pair.prompts])
        if any(len(a) != len(b.ids) for a, b in zip(hidden, pair.prompts, strict=True)):
            raise EngineFailed("llama.cpp left out tokens.")
        judge_weight, gain_weight, offset = self._weights
        total = judge_weight * float(hidden[0][-1] @ self._verdict) + offset
        if len(pair.prompts) > 1:
            total += gain_weight * self._gain(pair.prompts, hidden)
        return 1 / (1 + math.exp(-min(max(total, -60.0), 60.0)))

    def _gain(self, prompts: tuple[Sequence, ...], hidden: list[Hidden]) -> float:
        given, alone = (
            self._logprob(prompt, states)
            for prompt, states in zip(prompts[1:], hidden[1:], strict=True)
        )
        return (given - alone) / math.sqrt(max(1, prompts[1].end - prompts[1].start))

    def _logprob(self, prompt: Sequence, states: Hidden) -> float:
        """Log P of the document's tokens, each after all before it."""
        assert self._output is not None, "the card has a gain"
        total = 0.0
        for start in range(prompt.start, prompt.end, _LOGIT_ROWS):
            end = min(start + _LOGIT_ROWS, prompt.end)
            logits = states[start - 1 : end - 1] @ self._output.T
            wanted = logits[np.arange(end - start), prompt.ids[start:end]]
            highest = logits.max(1)
            logits -= highest[:, None]
            np.exp(logits, out=logits)
            total += float((wanted - highest - np.log(logits.sum(1))).sum())
        return total

"""A cross-encoder and its tokenizer: pairs in, one score each out. Imported in workers only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from tokenizers import Encoding, Tokenizer

from inferd.engines.onnx import Array, Device, open_session, padded
from inferd.errors import EngineFailed


class PairIds(NamedTuple):
    """One pair as the model reads it."""

    ids: list[int]
    segments: list[int]
    """0: query, 1: document."""


class CrossEncoderModel:
    """A sequence classifier of pairs in ONNX: one logit, or two of which the second says yes.

    Thread-safe. A document that is too long is cut.
    """

    def __init__(
        self,
        model: Path,
        tokenizer: Path,
        context_length: int,
        threads: int,
        device: Device = "cpu",
    ) -> None:
        self._session = open_session(model, threads, device=device)
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        # The package's own types leave this call's options open.
        cast("Any", self._tokenizer).enable_truncation(context_length, strategy="only_second")
        self._single = Tokenizer.from_file(str(tokenizer))
        self._single.no_padding()
        self._single.no_truncation()
        self._context_length = context_length
        self._fill = self._pad_id()
        self.score(self.pairs([("warm", "up")]))

    def _pad_id(self) -> int:
        found = (self._tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>"))
        return next((one for one in found if one is not None), 0)

    def query_tokens(self, query: str) -> int:
        """Tokens of a query alone, special ones included."""
        return len(self._single.encode(query).ids)

    def pairs(self, pairs: list[tuple[str, str]], document_max: int | None = None) -> list[PairIds]:
        """Tokenised, each document cut to `document_max` tokens. The query must leave room."""
        encoded: list[Encoding] = self._tokenizer.encode_batch(pairs)
        return [_cut(one, document_max or self._context_length) for one in encoded]

    def score(self, pairs: list[PairIds]) -> list[float]:
        """Between 0 and 1: the sigmoid of the logit."""
        ids, mask = padded([pair.ids for pair in pairs], self._fill)
        segments, _ = padded([pair.segments for pair in pairs])
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
        told = self._session.run({name: feeds[name] for name in self._session.inputs})[0]
        return [float(one) for one in 1 / (1 + np.exp(-_logits(told, len(pairs))))]


def _cut(pair: Encoding, document_max: int) -> PairIds:
    """The pair without the tokens of its document behind the first `document_max`."""
    ids, segments = pair.ids, pair.type_ids
    if len(ids) > document_max:
        document = [at for at, sequence in enumerate(pair.sequence_ids) if sequence == 1]
        # They stand side by side; the tokens around them are no part of the document.
        if behind := document[document_max:]:
            left_out = slice(behind[0], behind[-1] + 1)
            del ids[left_out], segments[left_out]
    return PairIds(ids, segments)


def _logits(told: Array, count: int) -> Array:
    """One logit of each pair."""
    logits = told.reshape(count, -1).astype(np.float64)
    if logits.shape[1] == 2:
        # A softmax over no and yes is the sigmoid of their difference.
        logits = logits[:, 1:] - logits[:, :1]
    if logits.shape[1] != 1:
        raise EngineFailed(f"A reranker has 1 or 2 outputs, this model has {logits.shape[1]}.")
    return np.clip(logits[:, 0], -60, 60)

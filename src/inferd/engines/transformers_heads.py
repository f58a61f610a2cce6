"""What each task makes of a model of transformers: requests to items, items to an ending.

Imported in workers only. `compute` gets items of several requests at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from inferd.catalog.card import ModelCard
from inferd.engines.classifier_model import softmax
from inferd.engines.decode_image import decode_image
from inferd.engines.onnx import Array
from inferd.engines.transformers_answers import Span, best_span, windows
from inferd.engines.transformers_entities import entities
from inferd.engines.transformers_model import Library, floats
from inferd.engines.transformers_text import Row, TextModel, label_scores
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.base import TaskName, Usage
from inferd.tasks.classification import (
    Answered,
    Detected,
    Entities,
    Filled,
    Filling,
    FillMaskRequest,
    FoundObject,
    ImageClassificationRequest,
    Label,
    Labelled,
    ObjectDetectionRequest,
    QuestionAnsweringRequest,
    TextClassificationRequest,
    TokenClassificationRequest,
)
from inferd.tasks.every import Ending

MASK = "[MASK]"


class Head(Protocol):
    """One task. Items and results are its own affair."""

    takes: type
    """Its Request."""

    def items(self, request: Any) -> list[Any]:
        """What is to be computed. Raises BadRequest."""
        ...

    def size(self, item: Any) -> int:
        """Tokens of an item; 1 for a picture."""
        ...

    def compute(self, items: list[Any]) -> Sequence[Any]:
        """One result for each item."""
        ...

    def ending(self, request: Any, items: list[Any], results: list[Any], usage: Usage) -> Ending:
        """The task's last event."""
        ...


class _TextHead:
    def __init__(self, card: ModelCard, library: Library) -> None:
        self.model = TextModel(card, library)
        self.config = library.config

    def size(self, item: Row) -> int:
        return len(item.ids)

    def compute(self, items: list[Row]) -> Sequence[Any]:
        return self.model.logits(items)


class TextClassification(_TextHead):
    """The model's labels of a text."""

    takes = TextClassificationRequest

    def __init__(self, card: ModelCard, library: Library) -> None:
        super().__init__(card, library)
        self._names = library.labels()
        kind = getattr(self.config, "problem_type", None)
        self._independent = kind == "multi_label_classification" or len(self._names) == 1

    def items(self, request: TextClassificationRequest) -> list[Row]:
        """The text."""
        return [self.model.row(request.text, "input")]

    def ending(
        self,
        request: TextClassificationRequest,
        items: list[Row],
        results: list[Array],
        usage: Usage,
    ) -> Labelled:
        """All labels."""
        labels = label_scores(self._names, results[0], independent=self._independent)
        return Labelled(labels, usage)


class TokenClassification(_TextHead):
    """Names in a text."""

    takes = TokenClassificationRequest

    def __init__(self, card: ModelCard, library: Library) -> None:
        super().__init__(card, library)
        self._names = library.labels()

    def items(self, request: TokenClassificationRequest) -> list[Row]:
        """The text."""
        return [self.model.row(request.text, "input")]

    def ending(
        self,
        request: TokenClassificationRequest,
        items: list[Row],
        results: list[Array],
        usage: Usage,
    ) -> Entities:
        """All names."""
        return Entities(entities(request.text, items[0], results[0], self._names), usage)


class FillMask(_TextHead):
    """Words for the one mask of a text."""

    takes = FillMaskRequest

    def items(self, request: FillMaskRequest) -> list[Row]:
        """The text with the model's own mask. BadRequest unless there is exactly one."""
        tokenizer = self.model.tokenizer
        own = str(tokenizer.mask_token)
        row = self.model.row(request.text.replace(MASK, own), "input")
        if row.ids.count(tokenizer.mask_token_id) != 1:
            raise BadRequest(f"input needs exactly one {MASK}.", param="input")
        return [row]

    def compute(self, items: list[Row]) -> Sequence[Any]:
        """Logits at the mask."""
        masked: int = self.model.tokenizer.mask_token_id
        found = self.model.logits(items)
        return [one[row.ids.index(masked)] for one, row in zip(found, items, strict=True)]

    def ending(
        self, request: FillMaskRequest, items: list[Row], results: list[Array], usage: Usage
    ) -> Filled:
        """The likeliest words."""
        tokenizer: Any = self.model.tokenizer
        scores = softmax(results[0])
        best: list[int] = scores.argsort()[::-1][: request.top].tolist()
        at = items[0].ids.index(tokenizer.mask_token_id)
        fillings: list[Filling] = []
        for token in best:
            ids = [*items[0].ids[:at], token, *items[0].ids[at + 1 :]]
            whole = str(tokenizer.decode(ids, skip_special_tokens=True))
            fillings.append(Filling(whole, float(scores[token]), token, tokenizer.decode([token])))
        return Filled(tuple(fillings), usage)


class QuestionAnswering(_TextHead):
    """A span of the context."""

    takes = QuestionAnsweringRequest

    def items(self, request: QuestionAnsweringRequest) -> list[Row]:
        """The windows."""
        return windows(self.model, request.question, request.context)

    def compute(self, items: list[Row]) -> Sequence[Span]:
        """The best span of each window."""
        told = self.model.run(items)
        starts, ends = floats(told.start_logits), floats(told.end_logits)
        lengths = [len(row.ids) for row in items]
        return [
            best_span(row, starts[at][: lengths[at]], ends[at][: lengths[at]])
            for at, row in enumerate(items)
        ]

    def ending(
        self,
        request: QuestionAnsweringRequest,
        items: list[Row],
        results: list[Span],
        usage: Usage,
    ) -> Answered:
        """The best of all windows."""
        best = max(results, key=lambda span: span.score)
        answer = request.context[best.start : best.end]
        start = best.start + len(answer) - len(answer.lstrip())
        return Answered(answer.strip(), best.score, start, start + len(answer.strip()), usage)


class _ImageHead:
    def __init__(self, card: ModelCard, library: Library) -> None:
        self.library = library
        self.processor: Any = library.image_processor()
        self.names = library.labels()

    def items(self, request: Any) -> list[Any]:
        """The picture, decoded."""
        return [decode_image(request.image)]

    def size(self, item: Any) -> int:
        return 1

    def run(self, items: list[Any]) -> Any:
        made: Any = self.processor(images=items, return_tensors="np")
        return self.library.run(cast("dict[str, Array]", dict(made)))


class ImageClassification(_ImageHead):
    """The model's labels of a picture."""

    takes = ImageClassificationRequest

    def compute(self, items: list[Any]) -> Sequence[tuple[Label, ...]]:
        """Labels of each picture."""
        logits = floats(self.run(items).logits)
        return [label_scores(self.names, one, independent=False) for one in logits]

    def ending(
        self,
        request: ImageClassificationRequest,
        items: list[Any],
        results: list[tuple[Label, ...]],
        usage: Usage,
    ) -> Labelled:
        """The likeliest ones."""
        return Labelled(results[0][: request.top], usage)


class ObjectDetection(_ImageHead):
    """Things in a picture and where they are."""

    takes = ObjectDetectionRequest

    def compute(self, items: list[Any]) -> Sequence[list[FoundObject]]:
        """Everything that is found in each picture, sure or not."""
        sizes = [(picture.height, picture.width) for picture in items]
        told: list[Any] = self.processor.post_process_object_detection(
            self.run(items), threshold=0.0, target_sizes=sizes
        )
        return [self._objects(one, size) for one, size in zip(told, sizes, strict=True)]

    def _objects(self, told: Any, size: tuple[int, int]) -> list[FoundObject]:
        high, wide = size
        found: list[FoundObject] = []
        scores: list[float] = told["scores"].tolist()
        labels: list[int] = told["labels"].tolist()
        boxes: list[list[float]] = told["boxes"].tolist()
        for score, label, box in zip(scores, labels, boxes, strict=True):
            xmin, xmax = (min(max(round(box[at]), 0), wide) for at in (0, 2))
            ymin, ymax = (min(max(round(box[at]), 0), high) for at in (1, 3))
            found.append(FoundObject(self.names[label], score, xmin, ymin, xmax, ymax))
        return sorted(found, key=lambda one: -one.score)

    def ending(
        self,
        request: ObjectDetectionRequest,
        items: list[Any],
        results: list[list[FoundObject]],
        usage: Usage,
    ) -> Detected:
        """Those that are sure enough."""
        sure = [one for one in results[0] if one.score >= request.threshold]
        return Detected(tuple(sure), usage)


HEADS: dict[TaskName, type[Any]] = {
    "text-classification": TextClassification,
    "token-classification": TokenClassification,
    "fill-mask": FillMask,
    "question-answering": QuestionAnswering,
    "image-classification": ImageClassification,
    "object-detection": ObjectDetection,
}


def open_head(card: ModelCard, library: Library) -> Head:
    """The head of a card's task. Raises EngineFailed."""
    if card.task not in HEADS:
        raise EngineFailed(f"The engine transformers does not do {card.task}.")
    head: Head = HEADS[card.task](card, library)
    return head

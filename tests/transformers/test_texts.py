"""Tasks on texts against the library's own pipelines, and against what the models were taught."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from inferd.errors import BadRequest, ContextLengthExceeded, InferdError
from inferd.tasks.base import Counted, Stopped
from inferd.tasks.classification import (
    Answered,
    Entities,
    Filled,
    FillMaskRequest,
    Labelled,
    QuestionAnsweringRequest,
    TextClassificationRequest,
    TokenClassificationRequest,
)
from inferd.tasks.every import Request
from tests.transformers import tiny
from tests.transformers.loaded import ending, events, loaded, pipeline

pytestmark = [pytest.mark.transformers, pytest.mark.filterwarnings("ignore")]

Folder = Callable[[str], Path]


class TestTextClassification:
    async def test_it_says_what_it_was_taught(self, folder: Folder) -> None:
        async with loaded("text-classification", folder("opinions")) as engine:
            for text, good in tiny.OPINIONS:
                told = await ending(engine, TextClassificationRequest("t/m", text))
                assert isinstance(told, Labelled)
                assert told.labels[0].label == ("NEGATIVE", "POSITIVE")[good]
                assert told.labels[0].score > 0.8

    @pytest.mark.parametrize("name", ["opinions", "topics"])
    async def test_scores_are_those_of_the_library(self, folder: Folder, name: str) -> None:
        known = pipeline("text-classification", folder(name))
        async with loaded("text-classification", folder(name)) as engine:
            for text in ("a good film", "berlin sings", "."):
                told = await ending(engine, TextClassificationRequest("t/m", text))
                wanted = [(one["label"], one["score"]) for one in known(text, top_k=None)]
                assert [one.label for one in told.labels] == [label for label, _ in wanted]
                scores = [one.score for one in told.labels]
                assert scores == pytest.approx([score for _, score in wanted], abs=1e-4)

    async def test_usage_is_the_tokens_with_their_marks(self, folder: Folder) -> None:
        async with loaded("text-classification", folder("opinions")) as engine:
            counted, told = await events(engine, TextClassificationRequest("t/m", "a good film"))
            assert isinstance(counted, Counted)
            assert isinstance(told, Labelled)
            assert counted.most.input_tokens == told.usage.input_tokens == 5

    async def test_texts_together_are_as_texts_alone(self, folder: Folder) -> None:
        texts = ["a good film", "bad", "bad and boring " * 20, "good fun"] * 4
        async with loaded("text-classification", folder("opinions")) as engine:
            asked = [TextClassificationRequest("t/m", text) for text in texts]
            together = await asyncio.gather(*(ending(engine, one) for one in asked))
            for one, told in zip(asked, together, strict=True):
                alone = await ending(engine, one)
                assert [label.label for label in told.labels] == [x.label for x in alone.labels]
                scores = [label.score for label in told.labels]
                assert scores == pytest.approx([label.score for label in alone.labels], abs=1e-4)


class TestTokenClassification:
    async def test_it_finds_what_it_was_taught(self, folder: Folder) -> None:
        async with loaded("token-classification", folder("names")) as engine:
            text = "maria smith met john in new york ."
            told = await ending(engine, TokenClassificationRequest("t/m", text))
            assert isinstance(told, Entities)
            found = [(one.group, one.word) for one in told.entities]
            assert found == [("PER", "maria smith"), ("PER", "john"), ("LOC", "new york")]
            for one in told.entities:
                assert text[one.start : one.end] == one.word
                assert 0.5 < one.score <= 1

    async def test_names_are_those_of_the_library(self, folder: Folder) -> None:
        """Its strategy `first`: a word's first token decides."""
        known = pipeline("token-classification", folder("names"))
        async with loaded("token-classification", folder("names")) as engine:
            for text in ("Anna Smith, of Berlin, met Zoë.", "in paris", "xyzzy in new york city"):
                told = await ending(engine, TokenClassificationRequest("t/m", text))
                wanted = known(text, aggregation_strategy="first")
                places = [(one["entity_group"], one["start"], one["end"]) for one in wanted]
                assert [(one.group, one.start, one.end) for one in told.entities] == places
                scores = [float(one["score"]) for one in wanted]
                assert [one.score for one in told.entities] == pytest.approx(scores, abs=1e-4)


class TestFillMask:
    async def test_it_says_what_it_was_taught(self, folder: Folder) -> None:
        async with loaded("fill-mask", folder("masks")) as engine:
            for text, word in tiny.MASKED:
                told = await ending(engine, FillMaskRequest("t/m", text))
                assert isinstance(told, Filled)
                assert told.fillings[0].token_text == word
                assert len(told.fillings) == 5

    @pytest.mark.parametrize("name", ["masks", "roberta_masks"])
    async def test_fillings_are_those_of_the_library(self, folder: Folder, name: str) -> None:
        known = pipeline("fill-mask", folder(name))
        async with loaded("fill-mask", folder(name)) as engine:
            for text in ("anna lives in [MASK] .", "[MASK]", "the [MASK], so"):
                told = await ending(engine, FillMaskRequest("t/m", text))
                wanted = known(text.replace("[MASK]", known.tokenizer.mask_token))
                assert [one.token for one in told.fillings] == [one["token"] for one in wanted]
                assert [one.sequence for one in told.fillings] == [
                    one["sequence"] for one in wanted
                ]
                assert [one.token_text for one in told.fillings] == [
                    one["token_str"] for one in wanted
                ]
                scores = [one["score"] for one in wanted]
                assert [one.score for one in told.fillings] == pytest.approx(scores, abs=1e-4)

    @pytest.mark.parametrize("text", ["no mask", "[MASK] and [MASK]"])
    async def test_one_mask_it_must_be(self, folder: Folder, text: str) -> None:
        async with loaded("fill-mask", folder("masks")) as engine:
            with pytest.raises(BadRequest, match="exactly one"):
                await ending(engine, FillMaskRequest("t/m", text))


class TestQuestionAnswering:
    async def test_it_answers_what_it_was_taught(self, folder: Folder) -> None:
        async with loaded("question-answering", folder("questions")) as engine:
            for question, context, answer in tiny.QUESTIONS:
                told = await ending(engine, QuestionAnsweringRequest("t/m", question, context))
                assert isinstance(told, Answered)
                assert told.answer == answer
                assert context[told.start : told.end] == answer
                assert 0.3 < told.score <= 1

    async def test_a_long_context_is_read_in_windows(self, folder: Folder) -> None:
        question, context, answer = tiny.QUESTIONS[0]
        long = "x " * 150 + context + " x" * 150
        async with loaded("question-answering", folder("questions")) as engine:
            counted, told = await events(engine, QuestionAnsweringRequest("t/m", question, long))
            assert isinstance(told, Answered)
            assert long[told.start : told.end] == told.answer
            assert answer in told.answer
            # Each window is read with the question, and that is what is billed.
            assert told.usage.input_tokens > 310 + 3 * 6
            assert isinstance(counted, Counted)
            assert counted.most.input_tokens == told.usage.input_tokens

    async def test_a_question_that_leaves_no_room(self, folder: Folder) -> None:
        async with loaded("question-answering", folder("questions")) as engine:
            with pytest.raises(ContextLengthExceeded, match="question has"):
                await ending(engine, QuestionAnsweringRequest("t/m", "why " * 110, "anna ."))


TEXT_TASKS: list[tuple[str, str, Request]] = [
    ("text-classification", "opinions", TextClassificationRequest("t/m", "good " * 200)),
    ("token-classification", "names", TokenClassificationRequest("t/m", "anna " * 200)),
    ("fill-mask", "masks", FillMaskRequest("t/m", "[MASK] " + "anna " * 200)),
    ("fill-mask", "roberta_masks", FillMaskRequest("t/m", "[MASK]" + "a" * 62)),
]


class TestEveryTextTask:
    @pytest.mark.parametrize(("task", "name", "request_"), TEXT_TASKS)
    async def test_too_long_is_refused_with_its_length(
        self, folder: Folder, task: str, name: str, request_: Request
    ) -> None:
        async with loaded(task, folder(name)) as engine:  # type: ignore[arg-type]
            with pytest.raises(ContextLengthExceeded, match=r"input has \d+ tokens"):
                await ending(engine, request_)

    async def test_as_long_as_it_may_be_is_read(self, folder: Folder) -> None:
        async with loaded("fill-mask", folder("roberta_masks")) as engine:
            told = await ending(engine, FillMaskRequest("t/m", "[MASK]" + "a" * 59))
            assert told.usage.input_tokens == 62
        async with loaded("text-classification", folder("opinions")) as engine:
            told = await ending(engine, TextClassificationRequest("t/m", "good " * 126))
            assert told.usage.input_tokens == 128

    async def test_a_bad_text_among_good_ones_fails_alone(self, folder: Folder) -> None:
        async with loaded("fill-mask", folder("masks")) as engine:
            texts = ["anna lives in [MASK] .", "no mask", "maria [MASK] met john"]
            asked = (ending(engine, FillMaskRequest("t/m", text)) for text in texts)
            told = await asyncio.gather(*asked, return_exceptions=True)
            assert [isinstance(one, InferdError) for one in told] == [False, True, False]

    async def test_a_cancelled_request_stops_and_counts_nothing_undone(
        self, folder: Folder
    ) -> None:
        cancel = asyncio.Event()
        cancel.set()
        async with loaded("text-classification", folder("opinions")) as engine:
            asked = TextClassificationRequest("t/m", "good")
            *_, last = await events(engine, asked, cancel)
            assert isinstance(last, Stopped)
            assert last.usage.input_tokens == 0

    async def test_another_task_is_refused(self, folder: Folder) -> None:
        async with loaded("fill-mask", folder("masks")) as engine:
            with pytest.raises(BadRequest, match="transformers"):
                await ending(engine, TextClassificationRequest("t/m", "good"))

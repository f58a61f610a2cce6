"""The starter reranker on ten queries with four passages each, made to mislead.

The wrong passages share the query's words, the right one does not repeat them. The prompts and
weights of the card were chosen with ten other queries of the same kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from inferd.engines.base import Resources
from inferd.engines.llm_reranker import LlmRerankerEngine
from inferd.tasks.reranker import RerankRequest, Scored
from tests.weights import local_card

LIST: list[tuple[str, str, str, str, str]] = [
    (
        "How long does it take to boil an egg?",
        "Leave it in bubbling water for six minutes if you like a soft yolk "
        "and for ten if you want it hard.",
        "An egg takes its colour from the breed of the hen and not from the food.",
        "It does not take long to learn how an egg timer works.",
        "To boil the sap down to syrup takes forty litres for each litre.",
    ),
    (
        "What is the capital of Australia?",
        "Canberra was chosen as the seat of government in 1908 "
        "as a compromise between two rival cities.",
        "Sydney is the largest city of Australia and its best known harbour.",
        "Australia raised the capital that banks must hold against their loans.",
        "Write the name of a country, such as Australia, with a capital letter.",
    ),
    (
        "How do bees make honey?",
        "They collect nectar, pass it from mouth to mouth, and fan it with their wings "
        "until it thickens in the comb.",
        "Honey is sold in jars of half a kilogram and keeps for years.",
        "Bees make a humming noise because their wings beat two hundred times a second.",
        "To make honey cake, mix flour, eggs and spices and bake for an hour.",
    ),
    (
        "Who painted the Mona Lisa?",
        "Leonardo da Vinci worked on the portrait for years and took it with him to France.",
        "The Mona Lisa hangs in the Louvre behind bulletproof glass.",
        "Lisa and Mona painted the fence of their garden green last summer.",
        "The museum was painted white before the exhibition opened.",
    ),
    (
        "What causes tides in the ocean?",
        "The gravity of the Moon pulls the water towards it, "
        "and so, more weakly, does that of the Sun.",
        "The ocean covers seventy-one per cent of the surface of the Earth.",
        "Tide tables tell sailors when the harbour is deep enough to enter.",
        "What causes storms in the ocean is warm water that evaporates.",
    ),
    (
        "How do I get a stain of red wine out of a shirt?",
        "Cover it with salt at once, rinse with cold water, and wash with a little vinegar.",
        "Red wine goes well with beef, lamb and old cheese.",
        "The waiter wore a red shirt and poured the wine without spilling a drop.",
        "Stain the wood with two coats of varnish to get a dark red.",
    ),
    (
        "Why do leaves change colour in autumn?",
        "As days grow short, trees break down the green pigment, "
        "and yellow and red ones that were hidden show.",
        "Leaves fall on the track in autumn and make the trains late.",
        "You can change the colour of the leaves in the settings of the drawing program.",
        "Autumn begins on the day on which night and day are of equal length.",
    ),
    (
        "Which language has the most native speakers?",
        "Mandarin Chinese is the mother tongue of more than nine hundred million people.",
        "Most speakers at the language conference arrived by train.",
        "A native plant speaks for the health of the soil.",
        "English is learned as a second language in most schools.",
    ),
    (
        "How far is the Moon from the Earth?",
        "The mean distance is about 384,400 kilometres.",
        "The Moon goes round the Earth once in twenty-seven days.",
        "How far the Earth has warmed is measured by weather stations.",
        "Twelve astronauts walked on the Moon between 1969 and 1972.",
    ),
    (
        "What should I do if my phone falls into water?",
        "Switch it off, dry it with a cloth, "
        "and leave it in a warm place for two days before you charge it.",
        "Water falls eighty metres at this spot, so keep your phone dry when you take a picture.",
        "My phone number has changed; what you should do is call the office.",
        "Phones have become lighter every year since 1990.",
    ),
]
"""(query, the right passage, three wrong ones)."""

MRR_MIN = 0.8


@asynccontextmanager
async def judge(folder: Path) -> AsyncGenerator[LlmRerankerEngine]:
    card = local_card("inferd/smollm2-reranker")
    path = str(getattr(card.files[0].source, "path", ""))
    engine = LlmRerankerEngine()
    await asyncio.to_thread(engine.load, card, Resources({"model": path}, 2, str(folder)))
    try:
        yield engine
    finally:
        await engine.close()


async def scored(engine: LlmRerankerEngine, query: str, *documents: str, **fields: Any) -> Scored:
    request = RerankRequest("inferd/smollm2-reranker", (query,), documents, **fields)
    last = [event async for event in engine.run(request, asyncio.Event())][-1]
    assert isinstance(last, Scored)
    return last


@pytest.mark.engine
async def test_the_right_passage_ranks_high(tmp_path: Path) -> None:
    reciprocal = 0.0
    async with judge(tmp_path) as engine:
        for query, *passages in LIST:
            # The right one stands last, so that a tie counts against it.
            scores = (await scored(engine, query, *reversed(passages))).scores
            reciprocal += 1 / sum(score >= scores[-1] for score in scores)
    assert reciprocal / len(LIST) >= MRR_MIN


@pytest.mark.engine
@pytest.mark.parametrize("at", [4, 6])
async def test_what_lies_behind_the_cut_does_not_count(tmp_path: Path, at: int) -> None:
    query, right, *wrong = LIST[at]
    late = f"The committee met on Monday and did not agree on anything at all. {right}"
    async with judge(tmp_path) as engine:
        whole = await scored(engine, query, late, *wrong)
        cut = await scored(engine, query, late, *wrong, document_tokens_max=12)
    assert whole.scores[0] == max(whole.scores)
    assert cut.scores[0] == min(cut.scores)
    assert cut.usage.input_tokens < whole.usage.input_tokens

"""Remembers each answer that a client saw complete, and holds the ledger to it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import httpx
import msgspec

from inferd.money import usd
from inferd.storage.rows import EntryRow
from tests.e2e.steps import CHAT


class Seen(msgspec.Struct, frozen=True):
    """What a client was told of its own bill."""

    input_tokens: int
    output_tokens: int
    cost_usd: float


class Witness:
    """All clients of one test."""

    def __init__(self) -> None:
        self.answers: dict[str, Seen] = {}
        """By request id."""
        self.refusals: Counter[int] = Counter()
        """Answers that said no, by status; 200: a stream that ended with an error."""
        self._more = asyncio.Event()

    async def asks(self, client: httpx.AsyncClient, payload: dict[str, Any]) -> int:
        """One chat, plain or streamed; its status. httpx's errors if the connection broke."""
        answer = await client.post(CHAT, json=payload)
        usage = _usage(answer, streamed=payload.get("stream", False))
        if usage is None:
            self.refusals[answer.status_code] += 1
        else:
            self.answers[answer.headers["x-request-id"]] = usage
            self._more.set()
        return answer.status_code

    async def has_seen(self, count: int) -> None:
        """Wait for so many complete answers."""
        while len(self.answers) < count:
            self._more.clear()
            await self._more.wait()

    def check(self, entries: list[EntryRow]) -> None:
        """Every answer that was seen complete is there, once, with the bill that was shown."""
        ids = [entry.request_id for entry in entries]
        assert len(ids) == len(set(ids))
        written = {entry.request_id: entry for entry in entries}
        for request_id, seen in self.answers.items():
            entry = written[request_id]
            assert entry.status == "succeeded"
            assert seen == Seen(entry.input_tokens, entry.output_tokens, usd(entry.cost_nanos))


def _usage(answer: httpx.Response, *, streamed: bool) -> Seen | None:
    """None if the answer is a refusal or was not completed."""
    if answer.status_code != 200:
        return None
    told = answer.text
    if streamed:
        *head, end, _ = told.split("\n\n")
        if end != "data: [DONE]":
            return None
        told = head[-1].removeprefix("data: ")
    usage = json.loads(told)["usage"]
    return Seen(usage["prompt_tokens"], usage["completion_tokens"], usage["estimated_cost"])

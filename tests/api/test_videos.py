"""Films over the wire: jobs that outlive their process, and the native dialect."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import delete, text, update

from inferd import ids
from inferd.access.caller import INFERENCE_RUN
from inferd.access.limit_rules import EACH, Rule
from inferd.access.limits import Ticket
from inferd.catalog.card_price import CardPrice
from inferd.jobs import videos
from inferd.jobs.videos import VideoJobs
from inferd.money import usd
from inferd.serving.router import RouterOptions
from inferd.storage import accounts, jobs
from inferd.storage.rows import AccountRow, JobRow
from inferd.storage.tables import entries as entry_table
from inferd.storage.tables import jobs as job_table
from inferd.tasks.media import Media
from inferd.tasks.text_to_video import VideoRequest
from tests.gateway import Gateway, gateway
from tests.ledger import entries
from tests.weights import local_card

MODEL = "inferd/emoji-motion"
NATIVE = f"/v1/inference/{MODEL}"
OPTIONS = RouterOptions(memory_bytes=1 << 33)

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("g")
    async with gateway(folder, local_card(MODEL), router_options=OPTIONS) as running:
        yield running


async def begun(gate: Gateway, **fields: Any) -> dict[str, Any]:
    body = {"model": MODEL, "prompt": "a cat", "seconds": 1, "size": "64x64", **fields}
    answer = await gate.client.post("/v1/videos", body)
    assert answer.status == 200, answer.body
    return answer.json()


async def ended(gate: Gateway, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            told: dict[str, Any] = (await gate.client.get(f"/v1/videos/{job_id}")).json()
            if told["status"] in ("succeeded", "failed"):
                return told


async def settled(gate: Gateway, job_id: str, account_id: str) -> JobRow:
    async with asyncio.timeout(20):
        while True:
            async with gate.services.database.reading() as connection:
                row = await jobs.get(connection, job_id, account_id)
            if row is not None and row.ended_unix_ns is not None:
                return row
            await asyncio.sleep(0.005)


def left_behind(gate: Gateway, **fields: Any) -> JobRow:
    """A job as a process that died leaves it."""
    return JobRow(
        id=fields.pop("id", "videos_left"),
        account_id=gate.account_id,
        token_id="tok_local",
        request_id=ids.request_id(),
        model=fields.pop("model", MODEL),
        request=msgspec.msgpack.encode(VideoRequest(MODEL, "a cat", seconds=0.5, **fields)),
        status="running",
        result=None,
        error=None,
        created_unix_ns=gate.services.clock.unix_ns(),
        ended_unix_ns=None,
    )


async def resumed(gate: Gateway, row: JobRow) -> dict[str, Any]:
    async with gate.services.database.writing() as connection:
        await jobs.add(connection, row)
    assert await gate.services.videos.resume(gate.services.catalog.serving) == 1
    return await ended(gate, row.id)


class TestJobs:
    async def test_a_job_is_asked_about_until_its_film_is_there(self, gate: Gateway) -> None:
        first = await begun(gate)
        assert first["object"] == "video.generation.job"
        assert first["id"].startswith("videos_")
        assert (first["status"], first["data"], first["error"]) == ("queued", None, None)
        early = await gate.client.get(f"/v1/videos/{first['id']}/content")
        last = await ended(gate, first["id"])
        assert (last["status"], last["created_at"]) == ("succeeded", first["created_at"])
        path = f"/v1/openai/videos/{first['id']}/content?variant=video"
        film = await gate.client.get(path)
        assert (film.status, film.headers["content-type"]) == (200, "video/mp4")
        assert film.body[4:8] == b"ftyp"
        assert early.status == 409 or early.body == film.body
        by_url = await gate.client.get("/" + last["data"][0]["url"].split("/", 3)[3])
        assert (by_url.body, by_url.headers["content-type"]) == (film.body, "video/mp4")

    @pytest.mark.parametrize("variant", ["thumbnail", "spritesheet", "mp3"])
    async def test_other_variants_are_refused_by_name(self, gate: Gateway, variant: str) -> None:
        job = await begun(gate)
        await ended(gate, job["id"])
        path = f"/v1/videos/{job['id']}/content?variant={variant}"
        answer = await gate.client.get(path)
        assert answer.status == 400
        assert answer.json()["error"]["param"] == "variant"

    async def test_a_player_may_ask_for_a_part(self, gate: Gateway) -> None:
        job = await begun(gate)
        await ended(gate, job["id"])
        path = f"/v1/videos/{job['id']}/content"
        whole = (await gate.client.get(path)).body
        size = len(whole)
        for asked, first, end in (
            ("bytes=0-9", 0, 10),
            ("bytes=10-", 10, size),
            ("bytes=-7", size - 7, size),
            (f"bytes=0-{size * 2}", 0, size),
        ):
            part = await gate.client.get(path, headers={"range": asked})
            assert (part.status, part.body) == (206, whole[first:end])
            assert part.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
        beyond = await gate.client.get(path, headers={"range": f"bytes={size}-"})
        assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")
        for odd in ("bytes=-", "bytes=1-2,4-5", "lines=1-2", "bytes=x-"):
            assert (await gate.client.get(path, headers={"range": odd})).body == whole

    async def test_it_is_billed_once_for_its_seconds(self, gate: Gateway) -> None:
        before = len(await entries(gate))
        await ended(gate, (await begun(gate, seconds=2))["id"])
        new = (await entries(gate))[before:]
        # 0.0005 dollars a second.
        told = [(entry.unit, entry.quantity, entry.cost_nanos) for entry in new]
        assert told == [("output_seconds", 2_000_000, 1_000_000)]

    async def test_others_do_not_see_it(self, gate: Gateway) -> None:
        job = await begun(gate)
        async with gate.services.database.reading() as connection:
            assert await jobs.get(connection, job["id"], "somebody else") is None
        assert (await gate.client.get("/v1/videos/videos_none")).status == 404
        assert (await gate.client.get(f"/v1/videos/{job['id']}/thumbnail")).status == 404
        await ended(gate, job["id"])

    async def test_what_a_dead_process_left_is_made_and_billed_once(self, tmp_path: Path) -> None:
        async with gateway(tmp_path, local_card(MODEL), router_options=OPTIONS) as gate:
            row = left_behind(gate, width=64, height=64)
            assert (await resumed(gate, row))["status"] == "succeeded"
            assert [entry.request_id for entry in await entries(gate)] == [row.request_id]

    async def test_a_film_that_was_billed_and_then_lost_is_not_billed_again(
        self, tmp_path: Path
    ) -> None:
        """The process died between the entry and the row: the same work comes again."""
        async with gateway(tmp_path, local_card(MODEL), router_options=OPTIONS) as gate:
            row = left_behind(gate, width=64, height=64)
            await resumed(gate, row)
            async with gate.services.database.writing() as connection:
                await jobs.save(connection, msgspec.structs.replace(row, status="running"))
            (entry,) = await entries(gate)
            ledger = gate.services.ledger
            # What was paid runs on an empty purse too, and takes nothing of a full one.
            await ledger.set_credit(gate.account_id, entry.cost_nanos)
            await gate.services.videos.resume(gate.services.catalog.serving)
            assert (await ended(gate, row.id))["status"] == "succeeded"
            assert await entries(gate) == [entry]
            assert ledger.balance_nanos(gate.account_id) == 0
            assert ledger.outstanding_nanos(gate.account_id) == 0

    async def test_a_call_with_a_key_whose_answer_was_lost_finds_its_film(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The process died after the job's row and before the answer's."""
        key, body = {"idempotency-key": "film"}, {"model": MODEL, "prompt": "a cat", "seconds": 1}
        services, billed = gate.services, len(await entries(gate))

        async def dies(*_: object, **__: object) -> None:
            raise asyncio.CancelledError

        with monkeypatch.context() as patched:
            patched.setattr(type(services.idempotency), "keep", dies)
            patched.setattr(type(services.idempotency), "forget", dies)
            with pytest.raises(asyncio.CancelledError):
                await gate.client.post("/v1/videos", body, headers=key)
        services.ledger.epoch_unix_ns += 1
        services.idempotency._running.clear()  # pyright: ignore[reportPrivateUsage]
        again = await gate.client.post("/v1/videos", body, headers=key)
        assert again.status == 200
        assert (await ended(gate, again.json()["id"]))["status"] == "succeeded"
        third = await gate.client.post("/v1/videos", body, headers=key)
        assert third.json()["id"] == again.json()["id"]
        assert len(await entries(gate)) == billed + 1

    async def test_a_shutdown_leaves_a_job_for_the_next_start(self, tmp_path: Path) -> None:
        async with gateway(tmp_path, local_card(MODEL), router_options=OPTIONS) as gate:
            job = await begun(gate, seconds=10)
            async with asyncio.timeout(20):
                while not any(flight.usage.quantity for flight in gate.flights):
                    await asyncio.sleep(0)
            await gate.services.videos.close()
            async with gate.services.database.reading() as connection:
                left = await jobs.unfinished(connection)
            assert [(row.id, row.status) for row in left] == [(job["id"], "queued")]
            services = gate.services
            again = VideoJobs(services.database, services.gate, services.blobs, services.clock)
            assert await again.resume(services.catalog.serving) == 1
            assert (await ended(gate, job["id"]))["status"] == "succeeded"
            await again.close()
            told = [(entry.status, entry.quantity) for entry in await entries(gate)]
            assert told == [("cancelled", 0), ("succeeded", 10_000_000)]

    async def test_an_interrupted_film_is_billed_as_it_was_admitted(self, tmp_path: Path) -> None:
        """Its tier and its price, though the price has changed meanwhile."""
        price = CardPrice(output_seconds="0.0005", priority="2")
        card = msgspec.structs.replace(local_card(MODEL), price=price)
        async with gateway(tmp_path, card, router_options=OPTIONS) as gate:
            services = gate.services
            wishes = {"service_tier": "priority", "user": "ann"}
            job = await begun(gate, seconds=10, **wishes)
            await services.videos.close()
            async with services.changes.writing() as change:
                await services.prices.set(change.connection, MODEL, CardPrice(output_seconds="9"))
                change.touch("prices", MODEL)
            again = VideoJobs(services.database, services.gate, services.blobs, services.clock)
            await again.resume(services.catalog.serving)
            assert (await ended(gate, job["id"]))["status"] == "succeeded"
            last = (await entries(gate))[-1]
            assert (last.tier, last.cost_nanos) == ("priority", 10_000_000)
            await again.close()

    async def test_what_was_asked_with_a_jwt_stays_within_its_limit(self, tmp_path: Path) -> None:
        async with gateway(tmp_path, local_card(MODEL), router_options=OPTIONS) as gate:
            row = left_behind(gate, width=64, height=64)
            row = msgspec.structs.replace(row, jwt_id="jwt_1", jwt_limit_nanos=1)
            told = await resumed(gate, row)
            assert (told["status"], await entries(gate)) == ("failed", [])
            assert "scoped JWT's spending limit" in told["error"]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ("UPDATE accounts SET suspended = 'a debt' WHERE id = 'acc_x'", "suspended: a debt"),
            ("UPDATE accounts SET deleted_unix_ns = 5 WHERE id = 'acc_x'", "was deleted"),
            ("UPDATE tokens SET revoked_unix_ns = 5 WHERE account_id = 'acc_x'", "revoked"),
            ("UPDATE tokens SET expires_unix_ns = 5 WHERE account_id = 'acc_x'", "expired"),
        ],
    )
    async def test_who_may_not_be_billed_any_more_gets_no_film(
        self, tmp_path: Path, change: str, said: str
    ) -> None:
        async with gateway(tmp_path, local_card(MODEL), router_options=OPTIONS) as gate:
            services = gate.services
            async with services.database.writing() as connection:
                await accounts.add(connection, AccountRow("acc_x", "x", 1, None))
            token, _ = await services.tokens.create("acc_x", "t", (INFERENCE_RUN,))
            row = left_behind(gate, width=64, height=64)
            row = msgspec.structs.replace(row, account_id="acc_x", token_id=token.id)
            async with services.database.writing() as connection:
                await jobs.add(connection, row)
                await connection.execute(text(change))
            await services.videos.resume(services.catalog.serving)
            left = await settled(gate, row.id, "acc_x")
            assert (left.status, await entries(gate)) == ("failed", [])
            assert said in str(left.error)

    async def test_a_film_that_was_left_waits_for_room(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(videos, "AGAIN_SECONDS", (0.01,) * 500)
        async with gateway(tmp_path, local_card(MODEL), router_options=OPTIONS) as gate:
            services = gate.services
            busy = Ticket(gate.account_id, "t", MODEL, 0)
            rule = Rule(EACH, None, EACH, concurrent_requests=1)
            services.limits.live.set_rules([rule])
            await services.limits.live.enter(busy)
            row = left_behind(gate, width=64, height=64)
            async with services.database.writing() as connection:
                await jobs.add(connection, row)
            assert await services.videos.resume(services.catalog.serving) == 1
            async with services.database.reading() as connection:
                left = await jobs.get(connection, row.id, gate.account_id)
            assert left is not None
            assert left.ended_unix_ns is None
            services.limits.live.leave(busy)
            assert (await ended(gate, row.id))["status"] == "succeeded"

    async def test_what_had_failed_already_is_not_filmed_for_nothing(self, tmp_path: Path) -> None:
        """Under an id that the ledger has, a success could not be booked."""
        async with gateway(tmp_path, local_card(MODEL), router_options=OPTIONS) as gate:
            row = left_behind(gate, width=64, height=64)
            for status in ("failed", "cancelled"):
                await begun(gate)
                async with asyncio.timeout(20):
                    while not (booked := await entries(gate)):
                        await asyncio.sleep(0.005)
                change = update(entry_table).where(entry_table.c.request_id == booked[0].request_id)
                async with gate.services.database.writing() as connection:
                    await connection.execute(
                        change.values(request_id=row.request_id, status=status)
                    )
                    await connection.execute(delete(job_table))
                told = await resumed(gate, row)
                assert told["status"] == ("failed" if status == "failed" else "succeeded")
                after = await entries(gate)
                assert len(after) == (1 if status == "failed" else 2)
                async with gate.services.database.writing() as connection:
                    await connection.execute(delete(entry_table))

    async def test_a_model_that_is_gone_fails_its_job(self, tmp_path: Path) -> None:
        async with gateway(tmp_path, local_card(MODEL), router_options=OPTIONS) as gate:
            told = await resumed(gate, left_behind(gate, model="gone/model"))
            assert told["status"] == "failed"
            assert "does not exist" in told["error"]

    async def test_a_film_that_fails_says_why(self, gate: Gateway) -> None:
        # What is known beforehand is not queued; a job of an older process may hold it.
        image = Media("image", "image/png", 8, data=b"\x89PNG\r\n\x1a\n")
        told = await resumed(gate, left_behind(gate, id="videos_bad", image=image))
        assert (told["status"], told["data"]) == ("failed", None)
        assert "no first frame" in told["error"]

    @pytest.mark.parametrize(
        "fields",
        [
            {"seconds": 0},
            {"seconds": 61},
            {"size": "9x9"},
            {"aspect_ratio": "wide"},
            {"prompt": ""},
            {"image_url": "AAAA"},
            {"webhook": "https://example.com"},
        ],
    )
    async def test_refusals(self, gate: Gateway, fields: dict[str, Any]) -> None:
        body = {"model": MODEL, "prompt": "a cat", **fields}
        answer = await gate.client.post("/v1/videos", body)
        assert answer.status == 400
        assert answer.json()["error"]["message"]


class TestNative:
    async def test_the_film_comes_under_both_names(self, gate: Gateway) -> None:
        body = {"prompt": "a cat", "seconds": 1, "size": "64x64", "fps": 8, "seed": 3}
        told = (await gate.client.post(NATIVE, body)).json()
        assert told["video"] == told["video_url"]
        head, _, text = told["video"].partition(",")
        assert head == "data:video/mp4;base64"
        assert b64decode(text)[4:8] == b"ftyp"
        assert told["seed"] == 3
        entry = (await entries(gate))[-1]
        assert told["inference_status"]["cost"] == usd(entry.cost_nanos) == 0.0005

    async def test_progress_comes_by_frame(self, gate: Gateway) -> None:
        body = {"prompt": "a cat", "duration": 1, "size": "64x64", "fps": 8, "stream": True}
        *steps, last = (await gate.client.post(NATIVE, body)).events()
        assert steps == [{"progress": {"step": step, "steps": 8}} for step in range(1, 9)]
        assert last["video"].startswith("data:video/mp4")

    @pytest.mark.parametrize("fields", [{"seconds": 11}, {"fps": 0}, {"webhook": "nowhere"}])
    async def test_what_is_not_done_is_said(self, gate: Gateway, fields: dict[str, Any]) -> None:
        answer = await gate.client.post(NATIVE, {"prompt": "a cat", **fields})
        assert answer.status in (400, 422)
        assert answer.json()["detail"]

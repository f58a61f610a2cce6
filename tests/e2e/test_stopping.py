"""Starting, draining, and refusing to start."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from tests.e2e.steps import CHAT, Visitor, body, card, eventually, gone, in_flight
from tests.process import InferdProcess, serving


async def test_ctrl_c_lets_streams_finish_and_refuses_new_calls(data_dir: Path) -> None:
    async with serving(data_dir, card("t/slow", "token_ms=10")) as server:
        async with server.client() as client, server.client() as late:
            await client.post(CHAT, json=body("t/slow"))
            worker = await server.worker_pid("t/slow")
            payload = body("t/slow", "w " * 450, stream=True)
            stream = asyncio.ensure_future(client.post(CHAT, json=payload))
            await in_flight(late, "t/slow", 1)
            server.interrupt()

            async def refuses() -> bool:
                answer = await late.post(CHAT, json=body("t/slow"))
                return answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1

            await eventually(refuses)
            assert "[DONE]" in (await stream).text
        assert await server.wait() == 0
        assert not (data_dir / "server.json").exists()
        await gone(worker)
        assert (await server.cli("usage", "verify"))[0] == 0


async def test_what_does_not_finish_by_the_deadline_is_billed_as_cancelled(
    data_dir: Path,
) -> None:
    slow = card("t/slow", "token_ms=10")
    async with serving(data_dir, slow, drain_seconds=0.2) as server:
        visitor = await Visitor.at(server)
        await visitor.ask(body("t/slow", "w " * 450, stream=True))
        await visitor.hear(3)
        server.interrupt()
        assert await server.wait() == 0
        await visitor.leave()
        (entry,) = server.entries()
        assert entry.status == "cancelled"
        assert 3 <= entry.output_tokens < 450


async def test_a_second_ctrl_c_stops_at_once(data_dir: Path) -> None:
    async with serving(data_dir, card("t/slow", "token_ms=10")) as server:
        visitor = await Visitor.at(server)
        await visitor.ask(body("t/slow", "w " * 450, stream=True, user="visitor"))
        await visitor.hear(3)
        async with server.client() as client:
            server.interrupt()

            async def refuses() -> bool:
                return (await client.post(CHAT, json=body("t/slow"))).status_code == 503

            await eventually(refuses)
        server.interrupt()
        assert await server.wait(5) == 0
        await visitor.leave()
        # A probe may still have been let in before the signal was handled.
        (entry,) = [one for one in server.entries() if one.end_user == "visitor"]
        assert 3 <= entry.output_tokens < 450


async def test_a_second_server_on_the_same_data_is_refused(data_dir: Path) -> None:
    async with serving(data_dir, card("t/echo")) as server:
        code, said = await server.cli("serve", "--port", "0")
        assert code == 1
        assert "Another inferd is serving" in said


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"prot": 1}, "INFERD_PROT is not a setting. Did you mean INFERD_PORT"),
        ({"port": 70_000}, "INFERD_PORT"),
        ({"valkey_url": "http://x"}, "valkey_url: expected"),
        ({"workers": 2}, "workers: several gateways need PostgreSQL"),
        ({"workers": 2, "database_url": "postgresql://x/y"}, "set valkey_url"),
        ({"bootstrap_token": "short"}, "32 characters"),
    ],
)
async def test_wrong_settings_stop_the_start_with_their_name(
    data_dir: Path, settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(AssertionError, match=sentence):
        await InferdProcess(data_dir, **settings).start()


async def test_what_lies_in_the_data_directory_is_its_owners_alone(data_dir: Path) -> None:
    home = data_dir / "home"
    home.mkdir(mode=0o700)
    async with serving(home, card("t/echo")) as server, server.client() as client:
        await client.post(CHAT, json=body("t/echo"))
        for name in ("server.json", "secret.key", "inferd.db", "store", "logs"):
            path = home / name
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, name

"""`inferd run` as people type it, for each kind of model."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.pictures import picture_path
from tests.process import InferdProcess
from tests.weights import local_card


@pytest.mark.engine
async def test_a_chat_sees_the_files_beside_its_prompt(data_dir: Path) -> None:
    server = InferdProcess(data_dir)
    card = msgspec.structs.replace(local_card("inferd/smolcaption"), name="t/sees", slots=1)
    server.add_card(card)
    cat = f"@{picture_path('chelsea.png')}"
    options = ("--temperature", "0", "--max-tokens", "24")
    code, said = await server.cli("run", "t/sees", "What is in this picture?", cat, *options)
    assert (code, "cat" in said.lower()) == (0, True), said
    code, said = await server.cli("run", "t/sees", cat, *options)
    assert (code, "cat" in said.lower()) == (0, True), said
    assert [entry.status for entry in server.entries()] == ["succeeded"] * 2

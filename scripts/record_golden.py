"""Records tests/golden/recorded anew. Look at the difference before you commit it."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tests.gateway import echo_card, gateway
from tests.golden.test_wire_bytes import CASES, RECORDED, steady


async def main() -> None:
    """Write one file for each case."""
    for name, (path, body) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            async with gateway(Path(folder), echo_card()) as running:
                answer = await running.client.post(path, body)
        told = f"{answer.status} {answer.headers['content-type']}\n{steady(answer.body)}"
        (RECORDED / f"{name}.txt").write_text(told)


if __name__ == "__main__":
    asyncio.run(main())
